"""Somebody who retired: what they signed to last goes on counting, and they do nothing new."""

import pytest
from kcm_crypto.session import TicketInfo, to_sign
from kcm_schemas.codec import encode
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted, Verifier

from tests.unit.test_trust_verify import ROWS, Row
from tests.unit.trust_rig import ID, roster
from tests.vectors.families.messages import identity


def _everybody(*, retired):
    known = roster()
    return Verifier(
        known.model_copy(
            update={
                "instances": [e.model_copy(update={"retired": retired}) for e in known.instances],
                "operators": [e.model_copy(update={"retired": retired}) for e in known.operators],
            }
        )
    )


RETIRED, ACTIVE = _everybody(retired=True), _everybody(retired=False)
LASTS = {
    Kind.TENANT, Kind.LINK, Kind.SERVICE, Kind.ROOT_KEYS, Kind.SERVICE_KEYS, Kind.HOLD, Kind.LIFT,
    Kind.AUDIT, Kind.AUDIT_HEAD, Kind.TRIM,
}  # fmt: skip
BELIEVED = [row for row in ROWS if row.believed and row.name != "auditor's reply"]


def _verify(verifier: Verifier, row: Row, raw: bytes) -> object:
    name = {Kind.ADMIN: "admin", Kind.ADMIN_REPLY: "admin_reply"}.get(
        row.kind, row.kind.value.replace("-", "_")
    )
    return getattr(verifier, name)(raw)


@pytest.mark.parametrize("row", BELIEVED, ids=lambda row: row.name)
def test_what_lasts_and_what_does_not(row):
    raw = encode(identity(row.believed[0]).sign(row.kind, row.body))
    assert _verify(ACTIVE, row, raw)
    if row.kind in LASTS:
        assert _verify(RETIRED, row, raw)
    else:
        with pytest.raises(Untrusted, match="retired"):
            _verify(RETIRED, row, raw)


def test_every_kind_was_tried():
    assert {row.kind for row in BELIEVED} == set(Kind) - {Kind.ROSTER}


def test_a_retired_auditor_answers_no_more():
    row = next(row for row in ROWS if row.name == "auditor's reply")
    raw = encode(identity("aud-eu").sign(row.kind, row.body))
    assert ACTIVE.admin_reply(raw, Role.AUDITOR)
    with pytest.raises(Untrusted, match="retired"):
        RETIRED.admin_reply(raw, Role.AUDITOR)


def test_a_retired_gateway_gets_no_session():
    info = TicketInfo("eu", ID, "gw-eu", ID, 1, 2)
    message = to_sign(info.encode(), b"ciphertext")
    signature = identity("gw-eu").sign_raw(message)
    assert ACTIVE.ticket("gw-eu", "eu", signature, message)
    with pytest.raises(Untrusted, match="retired"):
        RETIRED.ticket("gw-eu", "eu", signature, message)
