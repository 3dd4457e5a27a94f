"""The Auditor as a service: feeds, the clock's tick, answers, and an orderly end.

The Auditor is an emitter itself, in its own region's stream: its own starts, stops and silences
stand in every Auditor's journal that follows the region, its own included.

When the journal cannot be written there is nothing left to do: the process ends with an error, the
broker keeps what was not acknowledged, and whoever watches the Auditor hears its silence.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from kcm_bus.audit import AuditEmitter
from kcm_bus.clock import Clock, SystemRandomness
from kcm_bus.connection import Connection
from kcm_bus.membership import Membership
from kcm_bus.refusals import Refusals
from kcm_bus.roster_feed import RosterFeed
from kcm_bus.serving import Service
from kcm_bus.streams import ControlLog
from kcm_crypto.secretfile import SecretFileError
from kcm_schemas import subjects

from kcm_auditor.answering import Answers
from kcm_auditor.book import Book
from kcm_auditor.config import AuditorConfig
from kcm_auditor.journal import Journal, JournalError
from kcm_auditor.recorder import Recorder
from kcm_auditor.stream import RegionFeed
from kcm_auditor.trust import RosterTrust
from kcm_auditor.watch import Watch

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
"""Seconds between looks at the clock: how exactly silence is measured."""

ROSTER_S: Final = 2.0
"""Seconds between looks whether there is a new roster."""

QUEUE: Final = "auditor"
"""Auditors of a region share its operators' requests; each answers from its own journal."""

VERSION: Final = "0.1.0"
"""What the service protocol says."""


class Auditor:
    """One Auditor, from its start to its end."""

    def __init__(self, config: AuditorConfig, membership: Membership, clock: Clock) -> None:
        self._config: Final = config
        self._clock: Final = clock
        name = membership.name
        own = Connection(config.region_bus, name)
        others = {
            entry.region: Connection(entry, name)
            for entry in config.regions
            if entry.region != membership.region
        }
        self._own: Final = own
        self._others: Final = others
        self._regions: Final = (membership.region, *others)
        book = Book(name)
        self._journal: Final = Journal(config.auditor.journal, clock, book.positions)
        trust = RosterTrust(membership.rosters, config.roster)
        watch = Watch(self._regions, clock.elapsed())
        self._recorder: Final = Recorder(membership, trust, self._journal, book, watch, clock)
        self._emitter: Final = AuditEmitter(own, membership, clock)
        self._rosters: Final = RosterFeed(
            membership,
            ControlLog(own, membership.region, clock),
            Refusals("control", self._emitter.emit, clock),
            self._emitter.emit,
            SystemRandomness(),
        )
        self._answers: Final = Answers(
            membership, self._recorder, self._emitter, self._regions, clock
        )
        self._service: Final = Service(
            own, clock, "kcm-auditor", name, VERSION, {"region": membership.region}
        )

        self._leaving: asyncio.Task[None] | None = None
        membership.rosters.listen(lambda _: self._judge_again(membership))

    def _judge_again(self, membership: Membership) -> None:
        """Leave operators' questions to others, once this Auditor may not act any more."""
        if not membership.acts and self._leaving is None:
            log.critical("%s may not act any more, by the roster", membership.name)
            self._leaving = asyncio.get_running_loop().create_task(self._service.drain())

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set.

        Raises ``JournalError`` when the journal fails, ``SecretFileError`` when a password cannot
        be read.
        """
        self._recorder.open()
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._work(stop))
                await stop.wait()
                work.cancel()
        except* (JournalError, SecretFileError) as errors:
            raise _first(errors) from None
        finally:
            await self._end()

    async def _work(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(stop))
            for region, connection in self._others.items():
                group.create_task(self._follow(region, connection, stop))
            await self._own.start()
            await self._emitter.start()
            group.create_task(self._look_for_rosters(stop))
            group.create_task(self._feed(self._config.region, self._own, stop).run())
            await self._service.add(
                "auditor",
                subjects.auditor_all(self._config.region),
                self._answers.handle,
                QUEUE,
            )
            await self._service.announce()
            _write_ready(self._config.ready_file)
            log.info("recording %s", ", ".join(self._regions))

    def _feed(self, region: str, connection: Connection, stop: asyncio.Event) -> RegionFeed:
        return RegionFeed(connection, region, f"kcm-{self._config.instance}", self._recorder, stop)

    async def _follow(self, region: str, connection: Connection, stop: asyncio.Event) -> None:
        await connection.start()
        await self._feed(region, connection, stop).run()

    async def _tick(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(TICK_S)
            self._recorder.tick()

    async def _look_for_rosters(self, stop: asyncio.Event) -> None:
        """Look what the region's Cores have: an Auditor follows no control stream."""
        while not stop.is_set():
            await self._rosters.fetch()
            await asyncio.sleep(ROSTER_S)

    async def _end(self) -> None:
        if self._config.ready_file is not None:
            self._config.ready_file.unlink(missing_ok=True)
        await self._service.drain()
        await self._rosters.close()
        await self._emitter.close()
        if not self._journal.failed.is_set():
            self._recorder.sign_head()
        await self._journal.close()
        for connection in (self._own, *self._others.values()):
            await connection.close()
        log.info("ended")


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _write_ready(path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("ready\n")
