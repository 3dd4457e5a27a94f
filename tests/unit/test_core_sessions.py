"""Sessions from tickets: who is believed, for how long, and how many one caller may have."""

import dataclasses

import pytest
from kcm_core.api.sessions import SESSIONS_PER_CALLER_MAX, Sessions
from kcm_keymem.arena import Arena, Purged
from kcm_keymem.pages import fill_random
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.incarnations import Incarnations
from kcm_runtime.roster.store import Rosters
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.vault import CoreRequest, Ticket
from kcm_sealing.hpke import HpkePublic
from kcm_sealing.session import LIFETIME_MAX_MS, TicketInfo, open_session_as_caller

from tests.unit.core_rig import PRIVATE, VERIFIER
from tests.unit.trust_rig import ID
from tests.vectors.families.messages import identity

NOW = 1_000_000


def sessions(region="eu"):
    entry = next(one for one in VERIFIER.roster.regions if one.region == region)
    return Sessions(entry, PRIVATE[region], Rosters(VERIFIER), Incarnations())


def ticket(caller="gw-eu", signer=None, region="eu", public=None, **changes):
    info = TicketInfo(
        region=region,
        hpke_key_id=ID,
        caller=caller,
        session_id=SystemKeyRandomness().public(16),
        issued_ms=NOW,
        expiry_ms=NOW + LIFETIME_MAX_MS,
    )
    info = dataclasses.replace(info, **changes)
    key = HpkePublic.from_bytes(PRIVATE[public or region].public_bytes)
    session, ciphertext, signature = open_session_as_caller(
        info, key, identity(signer or caller).sign_raw, Arena(), fill_random
    )
    session.close()
    return request(
        caller,
        Ticket(
            session_id=info.session_id,
            hpke_key_id=info.hpke_key_id,
            issued_ms=info.issued_ms,
            expiry_ms=info.expiry_ms,
            ciphertext=ciphertext,
            signature=signature,
        ),
    )


def request(caller, its):
    return CoreRequest(
        v=1,
        caller=caller,
        incarnation=bytes(16),
        ticket=its,
        request_id=bytes(16),
        deadline_ms=NOW,
        purpose="record",
        l3_version=0,
        count=1,
        sealed=b"",
    )


def refused(known, asked, code, now=NOW):
    with pytest.raises(KcmError) as info:
        known.session(asked, now)
    assert info.value.code is code
    assert len(known) == 0


def test_a_ticket_is_opened_once_and_then_known():
    known, asked = sessions(), ticket()
    session, caller = known.session(asked, NOW)
    assert caller.instance == "gw-eu"
    assert known.session(asked, NOW + 1)[0] is session
    assert sessions().session(asked, NOW)[0] is not session  # any other Core can open it


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (ticket("gw-us", region="eu"), Code.FORBIDDEN),
        (ticket("core-eu"), Code.FORBIDDEN),
        (ticket("admin"), Code.FORBIDDEN),
        (ticket("stranger"), Code.FORBIDDEN),
        (ticket("gw-eu", signer="gw-us"), Code.FORBIDDEN),
        (ticket("gw-eu", region="us"), Code.FORBIDDEN),
        (ticket(public="us"), Code.UNKNOWN_SESSION),
        (ticket(hpke_key_id=b"k" * 16), Code.UNKNOWN_SESSION),
        (ticket(issued_ms=NOW + 60_000), Code.UNKNOWN_SESSION),
        (ticket(expiry_ms=NOW), Code.UNKNOWN_SESSION),
        (ticket(expiry_ms=NOW + LIFETIME_MAX_MS + 1), Code.UNKNOWN_SESSION),
    ],
    ids=[
        "of another region", "a Core", "an operator", "a stranger", "signed by another",
        "for another region", "for another region's key", "for another key id", "of the future",
        "ended", "too long",
    ],
)  # fmt: skip
def test_what_is_not_believed_opens_nothing(asked, code):
    refused(sessions(), asked, code)


@pytest.mark.parametrize("field", ["session_id", "issued_ms", "expiry_ms", "ciphertext"])
def test_a_ticket_of_a_known_session_changed_in_any_field_is_refused(field):
    known, asked = sessions(), ticket(expiry_ms=NOW + 1000)
    known.session(asked, NOW)
    value = getattr(asked.ticket, field)
    changed = value - 1 if isinstance(value, int) else value[:-1] + bytes([value[-1] ^ 1])
    forged = request("gw-eu", asked.ticket.model_copy(update={field: changed}))
    if field == "ciphertext":  # the signature covers it, and names the session that it made
        assert known.session(forged, NOW)[0] is known.session(asked, NOW)[0]
        known.close()
    else:
        with pytest.raises(KcmError) as info:
            known.session(forged, NOW)
        assert info.value.code is Code.FORBIDDEN
        known.close()
    refused(known, forged, Code.FORBIDDEN)


def test_a_session_ends_with_its_ticket_and_is_wiped():
    known, asked = sessions(), ticket()
    session, _ = known.session(asked, NOW)
    with pytest.raises(KcmError) as info:
        known.session(asked, NOW + LIFETIME_MAX_MS)
    assert info.value.code is Code.UNKNOWN_SESSION
    later = ticket(issued_ms=NOW + LIFETIME_MAX_MS, expiry_ms=NOW + 2 * LIFETIME_MAX_MS)
    known.session(later, NOW + LIFETIME_MAX_MS)
    assert len(known) == 1
    with pytest.raises(Purged):
        session.seal_reply(bytes(32), "core", memoryview(b"x"), bytes(24))


def test_one_caller_pushes_out_only_its_own_sessions():
    known = sessions()
    first = [ticket() for _ in range(SESSIONS_PER_CALLER_MAX)]
    opened = [known.session(asked, NOW)[0] for asked in first]
    known.session(first[0], NOW)  # used again, so the second is the oldest
    known.session(ticket(), NOW)
    assert len(known) == SESSIONS_PER_CALLER_MAX
    assert known.session(first[0], NOW)[0] is opened[0]
    with pytest.raises(Purged):
        opened[1].seal_reply(bytes(32), "core", memoryview(b"x"), bytes(24))


def test_closing_wipes_every_session():
    known = sessions()
    session, _ = known.session(ticket(), NOW)
    known.close()
    with pytest.raises(Purged):
        session.seal_reply(bytes(32), "core", memoryview(b"x"), bytes(24))
