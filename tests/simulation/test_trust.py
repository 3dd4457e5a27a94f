"""The cheap signatures are as strict as the real ones."""

import pytest
from kcm_schemas.codec import encode
from kcm_schemas.control import Receipt
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from tests.simulation.trust import SimVerifier, identity, roster

ROSTER = roster([("core-eu", Role.CORE, "eu"), ("gw-eu", Role.GATEWAY, "eu")], ["sec"], ["eu"])
RECEIPT = Receipt(
    hold_id=bytes(16),
    instance="core-eu",
    incarnation=bytes(16),
    role=Role.CORE,
    region="eu",
    keys=1,
    purge_us=1,
    unkept="",
    reached=bytes(32),
)


def test_what_was_signed_is_believed_again_and_again():
    verifier = SimVerifier(ROSTER)
    raw = encode(identity("core-eu").sign(Kind.RECEIPT, RECEIPT))
    assert verifier.receipt(raw) == RECEIPT
    assert verifier.receipt(raw) is verifier.receipt(raw)


def test_every_bit_counts():
    verifier = SimVerifier(ROSTER)
    raw = encode(identity("core-eu").sign(Kind.RECEIPT, RECEIPT))
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        for _ in range(2):
            with pytest.raises(Untrusted):
                verifier.receipt(changed)


@pytest.mark.parametrize("signer", ["gw-eu", "sec", "stranger"])
def test_nobody_speaks_for_somebody_else(signer):
    verifier = SimVerifier(ROSTER)
    raw = encode(identity(signer).sign(Kind.RECEIPT, RECEIPT))
    with pytest.raises(Untrusted):
        verifier.receipt(raw)


def test_a_statement_of_one_kind_is_none_of_another():
    verifier = SimVerifier(ROSTER)
    raw = encode(identity("core-eu").sign(Kind.LEASE, RECEIPT))
    with pytest.raises(Untrusted):
        verifier.receipt(raw)
