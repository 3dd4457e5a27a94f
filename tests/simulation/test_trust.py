"""The cheap signatures are as strict as the real ones."""

import pytest
from kcm_schemas.codec import encode
from kcm_schemas.control import Lease
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from tests.simulation.trust import SimVerifier, identity, member, roster

ROSTER = roster([("core-eu", Role.CORE, "eu"), ("gw-eu", Role.GATEWAY, "eu")], ["sec"], ["eu"])
LEASE = Lease(
    instance="core-eu", boot=bytes(16), role=Role.CORE, region="eu", nonce=bytes(16), first=0,
    ended=False,
)  # fmt: skip


def test_what_was_signed_is_believed_again_and_again():
    verifier = SimVerifier(ROSTER)
    raw = encode(member(verifier, "core-eu", bytes(16)).identity.sign(Kind.LEASE, LEASE))
    assert verifier.lease(raw) == LEASE
    assert verifier.lease(raw) is verifier.lease(raw)


def test_every_bit_counts():
    verifier = SimVerifier(ROSTER)
    raw = encode(identity("core-eu").sign(Kind.LEASE, LEASE))
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        for _ in range(2):
            with pytest.raises(Untrusted):
                verifier.lease(changed)


@pytest.mark.parametrize("signer", ["gw-eu", "sec", "stranger"])
def test_nobody_speaks_for_somebody_else(signer):
    verifier = SimVerifier(ROSTER)
    raw = encode(identity(signer).sign(Kind.LEASE, LEASE))
    with pytest.raises(Untrusted):
        verifier.lease(raw)


def test_a_statement_of_one_kind_is_none_of_another():
    verifier = SimVerifier(ROSTER)
    raw = encode(identity("core-eu").sign(Kind.RECEIPT, LEASE))
    with pytest.raises(Untrusted):
        verifier.lease(raw)
