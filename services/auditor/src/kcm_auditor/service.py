"""The Auditor as a service: feeds, the clock's tick, answers, and an orderly end.

The Auditor itself is an emitter, in its region's stream: its starts, stops and silences are in the
journal of every Auditor that follows the region, its own included.

If the journal cannot be written, the process ends with an error. The stream keeps what was not
recorded, and the silence of the Auditor is reported by the others.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kcm_runtime.audit.emitter import AuditEmitter
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.clock import Clock, SystemRandomness
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.request_server import RequestServer
from kcm_runtime.nats.stream_protection import Unfit
from kcm_runtime.nats.streams import ControlLog
from kcm_runtime.process import mark_ready, unmark_ready
from kcm_runtime.roster.follower import RosterFollower
from kcm_runtime.tasks import TaskSet
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code
from kcm_schemas.version import VERSION

from kcm_auditor.admin_api import AdminApi
from kcm_auditor.config import AuditorConfig
from kcm_auditor.heads import HeadPublisher, SignedHeads
from kcm_auditor.ingest import RegionFeed
from kcm_auditor.journal.format import Incident, IncidentKind
from kcm_auditor.journal.segments import JournalError
from kcm_auditor.journal.writer import Journal
from kcm_auditor.liveness import Watch
from kcm_auditor.positions import Book
from kcm_auditor.recorder import Recorder
from kcm_auditor.roster_reload import RosterReload

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
"""Seconds between ticks: the precision with which silence is measured."""

ROSTER_S: Final = 2.0
"""Seconds between two checks for a new roster."""

UNFIT_S: Final = 30.0
"""Seconds before another region's broker that was too old is checked again."""

QUEUE: Final = "auditor"
"""Auditors of a region share its operators' requests; each answers from its own journal."""


class Auditor:
    """One Auditor, from its start to its end."""

    def __init__(self, config: AuditorConfig, me: InstanceContext, clock: Clock) -> None:
        self._config: Final = config
        self._clock: Final = clock
        name = me.name
        own = Connection(config.region_bus, name)
        others = {
            entry.region: Connection(entry, name)
            for entry in config.regions
            if entry.region != me.region
        }
        self._own: Final = own
        self._others: Final = others
        self._regions: Final = (me.region, *others)
        book = Book(name)
        self._journal: Final = Journal(config.auditor.journal, clock, book.positions)
        trust = RosterReload(me.rosters, config.roster)
        watch = Watch(self._regions, clock.elapsed())
        self._me: Final = me
        self._emitter: Final = AuditEmitter(own, me, clock)
        self._signed: Final = SignedHeads(config.state_dir / "signed-heads.json")
        self._refusals: Final = RejectionLog("control", self._emitter.emit)
        self._rosters: Final = RosterFollower(
            me,
            ControlLog(own, me.region, clock),
            self._refusals,
            self._emitter.emit,
            SystemRandomness(),
            clock,
        )
        self._recorder: Final = Recorder(me, trust, self._journal, book, watch, clock, self._alarm)
        self._answers: Final = AdminApi(
            Host(me, clock, SystemRandomness(), self._emitter.emit),
            self._recorder,
            self._regions,
            self._signed,
        )
        self._service: Final = RequestServer(
            own, clock, "kcm-auditor", name, VERSION, {"region": me.region}
        )

        self._leaving: Final = TaskSet()
        self._left = False
        me.rosters.listen(lambda _: self._judge_again(me))

    def _judge_again(self, me: InstanceContext) -> None:
        """Leave operators' requests to others once this Auditor may not act any more."""
        if not me.acts and not self._left:
            log.critical(
                "this Auditor may not act any more, by the roster",
                extra=fields(instance=me.name),
            )
            self._left = True
            self._leaving.spawn(self._service.drain())

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set.

        Raises ``JournalError`` if the journal fails, ``SecretFileError`` if a password cannot be
        read, and ``Unfit`` if the broker of its own region is too old.
        """
        self._recorder.open()
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._work(stop))
                await stop.wait()
                work.cancel()
        except BaseExceptionGroup as errors:
            known, others = errors.split((JournalError, SecretFileError, Unfit))
            if known is None or others is not None:
                raise
            raise _first(known) from None
        finally:
            await self._end()

    async def _work(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(stop))
            for region, connection in self._others.items():
                group.create_task(self._follow(group, region, connection, stop))
            await self._own.start()
            await self._emitter.start()
            group.create_task(self._look_for_rosters(stop))
            self._read(group, self._config.region, self._own, stop)
            await self._service.add(
                "auditor",
                subjects.auditor_all(self._config.region),
                self._answers.handle,
                QUEUE,
            )
            await self._service.announce()
            mark_ready(self._config.ready_file, "ready")
            log.info(
                "records the regions %s",
                ", ".join(self._regions),
                extra=fields(instance=self._config.instance),
            )

    def _read(
        self, group: asyncio.TaskGroup, region: str, connection: Connection, stop: asyncio.Event
    ) -> None:
        """Follow a region's stream, and publish how much of it is recorded."""
        feed = RegionFeed(
            connection,
            region,
            self._me.name,
            self._recorder,
            stop,
            self._emitter.emit,
            self._clock,
        )
        heads = HeadPublisher(
            connection=connection,
            region=region,
            me=self._me,
            recorder=self._recorder,
            feed=feed,
            signed=self._signed,
            stopping=stop,
            clock=self._clock,
        )
        group.create_task(feed.run())
        group.create_task(heads.run())

    def _alarm(self, incident: Incident) -> None:
        """Report a lost part of the journal in the stream, for every other Auditor."""
        if incident.incident is IncidentKind.JOURNAL_LOST:
            self._emitter.emit(
                EventType.AUDIT_JOURNAL_LOST,
                code=Code.TAMPERED,
                count=incident.last - incident.first + 1,
                detail=f"region {incident.region}: messages {incident.first} to {incident.last}",
            )

    async def _follow(
        self,
        group: asyncio.TaskGroup,
        region: str,
        connection: Connection,
        stop: asyncio.Event,
    ) -> None:
        while True:
            try:
                await connection.start()
            except Unfit as error:  # the other regions are recorded nevertheless
                log.error("a region is not recorded: %s", error, extra=fields(region=region))
                await asyncio.sleep(UNFIT_S)
            else:
                break
        self._read(group, region, connection, stop)

    async def _tick(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(TICK_S)
            self._recorder.tick()

    async def _look_for_rosters(self, stop: asyncio.Event) -> None:
        """Fetch the roster of the region's Cores: an Auditor follows no control stream."""
        while not stop.is_set():
            await self._rosters.fetch()
            await asyncio.sleep(ROSTER_S)

    async def _end(self) -> None:
        unmark_ready(self._config.ready_file)
        await self._service.drain()
        await self._rosters.close()
        self._answers.close()
        self._refusals.close()
        await self._emitter.close()
        if not self._journal.failed.is_set():
            self._recorder.sign_head()
        await self._journal.close()
        for connection in (self._own, *self._others.values()):
            await connection.close()
        log.info("ended", extra=fields(instance=self._config.instance))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
