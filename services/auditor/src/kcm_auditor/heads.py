"""Signed stream heads: how much of each region's audit stream this Auditor has; they never go back.

A head is in the region's *control* stream, where its Cores find it even when the audit stream is
full. Each head is durable on this Auditor's disk before it is published, in a file beside the
journal. So a rolled-back journal is detected: positions below a signed head are not signed again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_runtime.audit.stream_chain import Place
from kcm_runtime.clock import Clock
from kcm_runtime.error_text import describe
from kcm_runtime.files.state_file import damaged, read_state, write_state
from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import last, put
from kcm_schemas import subjects
from kcm_schemas.auditor import StreamHead
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.signed import Kind
from nats import errors as nats_errors

from kcm_auditor.ingest import RegionFeed
from kcm_auditor.recorder import Recorder
from kcm_auditor.sink import StreamFacts

log = logging.getLogger(__name__)

HEAD_S: Final = 10.0
"""The least seconds between two heads of a region: a small write that replaces the previous one."""


VERSION: Final = 1
"""The version of the file's format."""

REMEDY: Final = "move it away if you are sure that the journal is not older"
"""What to do about a file that cannot be used."""


@dataclass(frozen=True, slots=True)
class SignedPlace:
    """What was signed: the stream created at ``created`` (µs), up to ``through``."""

    created: int
    through: int


class SignedHeads:
    """The heads that this Auditor signed, in one file that is replaced atomically."""

    def __init__(self, path: Path) -> None:
        """Raises ``ConfigError`` if the file exists and is not usable."""
        self._path: Final = path
        self._signed: Final = dict[str, SignedPlace]()
        content = read_state(path, VERSION, REMEDY)
        try:
            for region, (created, through) in content["signed"].items() if content else ():
                self._signed[region] = SignedPlace(int(created), int(through))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise damaged(path, REMEDY) from None

    @property
    def all(self) -> Mapping[str, SignedPlace]:
        """The signed positions, by region."""
        return self._signed

    def through(self, region: str, created: int) -> int:
        """Return the position up to which this very stream was signed; 0 if none."""
        signed = self._signed.get(region)
        return signed.through if signed is not None and signed.created == created else 0

    def raise_to(self, region: str, created: int, through: int) -> None:
        """Save a signed position durably; raises ``OSError``, and then keeps nothing."""
        signed = {**self._signed, region: SignedPlace(created, through)}
        content = {name: (p.created, p.through) for name, p in signed.items()}
        write_state(self._path, VERSION, {"signed": content})
        self._signed[region] = signed[region]


def to_sign(mark: Place | None, signed: int, published: int) -> Place | None:
    """Return the position to sign now: above ``signed``, or equal if it is not published. Pure.

    ``signed`` and ``published`` are sequences; 0 means none.
    """
    if mark is None or mark.sequence < signed:
        return None
    return mark if mark.sequence > published else None


class HeadPublisher:
    """Publishes one region's heads until ``stopping`` is set."""

    def __init__(
        self,
        *,
        connection: Connection,
        region: str,
        me: InstanceContext,
        recorder: Recorder,
        feed: RegionFeed,
        signed: SignedHeads,
        stopping: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._connection: Final = connection
        self._region: Final = region
        self._me: Final = me
        self._recorder: Final = recorder
        self._feed: Final = feed
        self._signed: Final = signed
        self._stopping: Final = stopping
        self._clock: Final = clock
        self._subject: Final = subjects.control_head(region, me.name)

    async def run(self) -> None:
        """Read the stream's state and publish, repeatedly; errors never end the Auditor."""
        while not self._stopping.is_set():
            try:
                await self.publish(await self._feed.look())
            except (nats_errors.Error, KcmError, TimeoutError, OSError) as error:
                log.info(
                    "no head is published: %s",
                    describe(error),
                    extra=fields(region=self._region),
                )
            await asyncio.sleep(HEAD_S)

    async def publish(self, facts: StreamFacts) -> None:
        """Sign and store a new head, if there is one; raises ``KcmError`` and ``OSError``."""
        mark = self._recorder.head(self._region)
        signed = self._signed.through(self._region, facts.made)
        if mark is None or self._recorder.created(self._region) != facts.created:
            return
        stored = await last(self._connection, subjects.CONTROL_STREAM, self._subject)
        body = stored.data if stored is not None else b""
        published = self._recorder.signed(self._region, facts.made, body).sequence
        place = to_sign(mark, max(signed, published), published)
        if place is None:
            return
        await asyncio.to_thread(self._signed.raise_to, self._region, facts.made, place.sequence)
        head = StreamHead(
            auditor=self._me.name,
            region=self._region,
            created=facts.made,
            through=place.sequence,
            digest=place.digest,
            time_ms=self._clock.unix_ms(),
        )
        body = encode(self._me.identity.sign(Kind.STREAM_HEAD, head))
        await put(
            self._connection,
            self._subject,
            body,
            expected=stored.sequence if stored is not None else 0,
        )
