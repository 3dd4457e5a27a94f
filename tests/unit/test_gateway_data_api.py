"""The Gateway's requests: on time, within its grants, on record, and none that cannot be."""

import pytest
from kcm_gateway.data_api import DataApi
from kcm_gateway.engine import Batch
from kcm_runtime.clock import SystemRandomness
from kcm_runtime.host import Host
from kcm_schemas import data_subjects, limits
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptReply, DecryptRequest, EncryptReply, EncryptRequest

from tests.fakes.bus import Clock
from tests.unit.core_rig import instance_context
from tests.unit.refusals import refused

ENCRYPT = data_subjects.gateway("eu", "encrypt", "acme", "crm")
DECRYPT = data_subjects.gateway("eu", "decrypt", "acme", "crm")


class Engine:
    def __init__(self):
        self.calls = 0
        self.error = None
        self.lease_s = 3.0
        self.work = lambda: None

    async def encrypt(self, tenant, service, plaintexts, contexts, *, dek_scope):
        return self._done(plaintexts)

    async def decrypt(self, tenant, service, records, contexts):
        return self._done(records, [Code.TAMPERED, *[Code.OK] * (len(records) - 1)])

    def _done(self, values, codes=()):
        self.calls += 1
        self.work()
        if self.error is not None:
            raise self.error
        return Batch(list(values), list(codes), self.lease_s)


class Audit:
    has_room = True
    refusal = "the audit buffer is full, and requests that cannot be recorded are refused"

    def __init__(self):
        self.events = []

    def emit(self, kind, **fields):
        self.events.append((kind, fields["code"], fields["count"], fields["failed"]))


class Rig:
    """The requests of a Gateway whose engine, audit trail and clock are a test's."""

    def __init__(self):
        self.clock, self.engine, self.audit = Clock(), Engine(), Audit()
        host = Host(instance_context("gw-eu"), self.clock, SystemRandomness(), self.audit.emit)
        self.api = DataApi(host, self.engine, self.audit)

    async def handle(self, subject, body):
        return await self.api.handle(subject, body)


@pytest.fixture
def service():
    return Rig()


def ask(service, *, ahead_ms=5000, count=2, kind=EncryptRequest):
    deadline = service.clock.unix_ms() + ahead_ms
    if kind is EncryptRequest:
        return encode(
            kind(
                v=1,
                deadline_ms=deadline,
                dek_scope="record",
                plaintexts=[b"x"] * count,
                contexts=[],
            )
        )
    return encode(kind(v=1, deadline_ms=deadline, records=[b"x"] * count, contexts=[]))


async def test_both_operations_are_served_and_recorded(service):
    reply = decode(EncryptReply, await service.handle(ENCRYPT, ask(service)))
    assert reply.records == [b"x", b"x"]
    body = ask(service, kind=DecryptRequest)
    assert decode(DecryptReply, await service.handle(DECRYPT, body)).codes[0] is Code.TAMPERED
    assert service.audit.events == [
        ("data.encrypt", Code.OK, 2, 0),
        ("data.decrypt", Code.OK, 2, 1),
    ]


@pytest.mark.parametrize(
    ("subject", "ahead_ms", "code"),
    [
        (ENCRYPT, 0, Code.DEADLINE_EXCEEDED),
        (ENCRYPT, -1, Code.DEADLINE_EXCEEDED),
        (ENCRYPT, limits.DEADLINE_MAX_MS + 1, Code.MALFORMED),
        (data_subjects.gateway("eu", "encrypt", "bcme", "crm"), 5000, Code.FORBIDDEN),
        (data_subjects.gateway("eu", "shred", "acme", "crm"), 5000, Code.MALFORMED),
        (DECRYPT, 5000, Code.MALFORMED),
    ],
    ids=["now", "late", "far ahead", "no grant", "no operation", "another operation's body"],
)
async def test_what_is_refused_is_not_done_and_is_recorded(service, subject, ahead_ms, code):
    assert await refused(service.handle(subject, ask(service, ahead_ms=ahead_ms))) is code
    assert service.engine.calls == 0
    assert [event[1] for event in service.audit.events] == [code]


@pytest.mark.parametrize(
    ("spent_s", "left_s", "lease_ms"),
    [(0.0, 3.0, 3000), (1.0, 0.5, 1500), (1.0, 2.0, 3000), (3.0, 4.0, 5000), (0.0, 60.0, 5000)],
)
async def test_an_answer_may_be_accepted_until_its_keys_end_and_no_longer(
    service, spent_s, left_s, lease_ms
):
    """Counted from the sending: whoever gets it after the work still has the rest of the lease."""

    def work():
        service.clock.now += spent_s

    service.engine.work = work
    service.engine.lease_s = left_s
    for subject, kind, reply in (
        (ENCRYPT, EncryptRequest, EncryptReply),
        (DECRYPT, DecryptRequest, DecryptReply),
    ):
        answer = await service.handle(subject, ask(service, kind=kind))
        assert decode(reply, answer).lease_ms == lease_ms
        assert lease_ms <= (spent_s + left_s) * 1000


async def test_what_cannot_be_recorded_is_not_done_and_takes_no_room_from_purges(service):
    service.audit.has_room = False
    for _ in range(1000):
        assert await refused(service.handle(ENCRYPT, ask(service))) is Code.UNAVAILABLE
    assert service.engine.calls == 0
    assert service.audit.events == []


async def test_a_fault_is_recorded_as_one(service):
    service.engine.error = RuntimeError("a fault")
    with pytest.raises(RuntimeError):
        await service.handle(ENCRYPT, ask(service))
    service.engine.error = KcmError(Code.TENANT_KILLED)
    assert await refused(service.handle(ENCRYPT, ask(service))) is Code.TENANT_KILLED
    assert [event[1:] for event in service.audit.events] == [
        (Code.INTERNAL, 2, 2),
        (Code.TENANT_KILLED, 2, 2),
    ]


async def test_what_would_not_fit_into_the_answer_is_refused_before_it_is_done(service):
    size = limits.BODY_MAX // limits.RECORDS_MAX - 20
    body = encode(
        EncryptRequest(
            v=1,
            deadline_ms=service.clock.unix_ms() + 5000,
            dek_scope="record",
            plaintexts=[bytes(size)] * limits.RECORDS_MAX,
            contexts=[],
        )
    )
    assert await refused(service.handle(ENCRYPT, body)) is Code.TOO_LARGE
    assert service.engine.calls == 0


async def test_nobody_who_asks_chooses_the_type_of_an_event(service):
    for operation in ("shred", "a" * 60, "alive"):
        subject = data_subjects.gateway("eu", operation, "acme", "crm")
        assert await refused(service.handle(subject, ask(service))) is Code.MALFORMED
    assert {event[0] for event in service.audit.events} == {EventType.DATA_REFUSED}
