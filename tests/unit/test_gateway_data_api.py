"""The Gateway's requests: on time, within its grants, on record, and none that cannot be."""

import pytest
from kcm_schemas import data_subjects, limits
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptReply, DecryptRequest, EncryptReply, EncryptRequest

from tests.unit.app_rig import Served, app
from tests.unit.refusals import refused

ENCRYPT = data_subjects.gateway("eu", "encrypt", "acme", "crm")
DECRYPT = data_subjects.gateway("eu", "decrypt", "acme", "crm")


@pytest.fixture
def service():
    made = Served()
    made.registry.put(app("raw", "acme/*", "bcme/*", plain=True))
    return made


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
        (DECRYPT, 5000, Code.MALFORMED),
    ],
    ids=["now", "late", "far ahead", "another operation's body"],
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
    assert {kind for kind, _ in service.audit.all} == {EventType.TRUST_REFUSED}


async def test_what_this_gateway_is_not_granted_is_refused(service):
    subject = data_subjects.gateway("eu", "encrypt", "bcme", "crm")
    assert await refused(service.handle(subject, ask(service))) is Code.FORBIDDEN
    assert service.engine.calls == 0
