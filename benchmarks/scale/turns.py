"""Tenants used in turn, each with a key of its own: until when answers may be accepted.

That is counted from the last use of the key, and no lease may be longer for it. A use is heard of
in two ways: as an attestation in the region's control stream, and as ``root.open`` in its audit
stream (a root that is opened is a use, and proves nothing anew where another Core just did).
Answers are asked for without the SDK, which does not show an answer's lease.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

from kcm_schemas import data_subjects, subjects
from kcm_schemas.audit import AuditBatch, AuditEvent
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import KcmError
from kcm_schemas.data import EncryptReply, EncryptRequest, decode_reply
from kcm_schemas.signed import read_signed
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from benchmarks.bare import connected, written
from benchmarks.kill.living import SERVICE, System
from benchmarks.scale.filling import region_account

ANSWER_S: Final = 5.0
"""Seconds that a request may take."""

HEARD_S: Final = 2.0
"""Seconds after an answer within which the attestation of a use before it comes."""

ALL_S: Final = 30.0
"""Seconds to wait until a use of every key was heard of: the audit comes in batches."""

_POLL_S: Final = 0.05


@dataclass(slots=True)
class Uses:
    """When each customer's key was used, by the name of its link; times are of the wall clock."""

    attestations: int = 0
    opened: int = 0
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def control(self, message: Msg) -> None:
        """Hear of an attestation."""
        if subjects.control_noun(message.subject) == "key-use":
            self.attestations += 1
            self.times[message.subject.split(".")[5]].append(time.time())

    async def audit(self, message: Msg) -> None:
        """Hear of roots that were opened; tenants have the names of their links."""
        batch = decode(AuditBatch, read_signed(message.data).body)
        for event in (decode(AuditEvent, raw) for raw in batch.events):
            if event.type == "root.open":
                self.opened += 1
                self.times[event.tenant or ""].append(event.time_ms / 1000)

    async def of_all(self, links: Iterable[str]) -> None:
        """Wait until a use of each of these keys was heard of."""
        missing, end = set(links), time.monotonic() + ALL_S
        while missing := {link for link in missing if not self.times[link]}:
            if time.monotonic() >= end:
                raise AssertionError(f"of {len(missing)} keys no use was heard of")
            await asyncio.sleep(_POLL_S)

    def last(self, link: str, moment: float) -> float | None:
        """The last use of a key up to a moment."""
        times = sorted(self.times[link])
        at = bisect_right(times, moment)
        return times[at - 1] if at else None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: for whom, when it came, and until when it may be accepted."""

    tenant: str
    came: float
    until: float


@dataclass(frozen=True, slots=True)
class Turned:
    """What came of a round of some seconds."""

    answers: list[Answer]
    refused: Counter[str]
    """How many were refused, by why."""

    async def longest_s(self, uses: Uses) -> float:
        """Seconds from the last use of a key to the end of an answer, at most."""
        await asyncio.sleep(HEARD_S)
        await uses.of_all(one.tenant for one in self.answers)
        longest = 0.0
        for one in self.answers:
            used = uses.last(one.tenant, one.came + HEARD_S)
            if used is None:
                raise AssertionError(f"{one.tenant} was answered, and its key was never used")
            longest = max(longest, one.until - used)
        return longest


@asynccontextmanager
async def listening(at: System, region: str) -> AsyncIterator[tuple[Nats, Uses]]:
    """A connection to a region's broker, and the uses of keys that are told there."""
    address, uses = region_account(at, region), Uses()
    async with connected(address) as client:
        await client.subscribe(subjects.control_all(region), cb=uses.control)
        await client.subscribe(subjects.audit_all(region), cb=uses.audit)
        await written(client)
        yield client, uses


def from_both_ends(tenants: Sequence[str]) -> list[str]:
    """The first, the last, the second, and so on: who is sealed, and who is open, by turns."""
    pairs = zip(tenants, reversed(tenants), strict=True)
    return [tenant for pair in pairs for tenant in pair][: len(tenants)]


async def in_turn(
    client: Nats, region: str, tenants: Sequence[str], per_s: float, seconds: float
) -> Turned:
    """Use one tenant after the other, so many a second."""
    answers: list[Answer] = []
    refused: Counter[str] = Counter()

    async def one(tenant: str) -> None:
        sent = time.time()
        request = EncryptRequest(
            v=1, deadline_ms=int((sent + ANSWER_S) * 1000), dek_scope="record", plaintexts=[b""],
            contexts=[],
        )  # fmt: skip
        subject = data_subjects.gateway(region, "encrypt", tenant, SERVICE)
        try:
            body = (await client.request(subject, encode(request), timeout=ANSWER_S)).data
            lease_s = decode_reply(EncryptReply, body).lease_ms / 1000
        except KcmError as error:
            refused[error.code.value] += 1
        except NatsError as error:
            refused[type(error).__name__] += 1
        else:
            answers.append(Answer(tenant, time.time(), sent + lease_s))

    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for tenant in cycle(tenants):
            if time.monotonic() >= end:
                break
            group.create_task(one(tenant))
            await asyncio.sleep(1 / per_s)
    return Turned(answers, refused)
