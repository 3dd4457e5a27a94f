"""Why a tenant is not served, in words that any application may read: the kind of hold, no more."""

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_schemas.codes import RETRYABLE, Code, KcmError
from kcm_schemas.control import Hold
from kcm_schemas.registry import Tenant

ACME = Tenant(tenant="acme", revision=1, link="acme-root", regions=["eu"], region_quorum="all")


def record(scope, target, cause):
    hold = Hold(
        id=bytes(16), salt=bytes(16), scope=scope, target=target, cause=cause, origin="eu",
        issued_ms=5, reason="a secret of the operator",
    )  # fmt: skip
    return HoldState(hold, b"hold")


@pytest.mark.parametrize(
    ("held", "text"),
    [
        (("tenant", "acme", "operator"), "an operator killed the tenant"),
        (("link", "acme-root", "operator"), "an operator killed the tenant's root key"),
        (("link", "acme-root", "l1"), "the customer's root key refuses"),
        (("region", "eu", "operator"), "an operator took this region out of service"),
    ],
)
def test_the_text_fits_the_cause_and_tells_nobodys_reason(held, text):
    revocations = Revocations(Registry(), "eu")
    revocations.register(ACME)
    revocations.learn(record(*held))
    for asked in (lambda: revocations.begin("acme"), lambda: revocations.still("acme", 0)):
        with pytest.raises(KcmError, match=text) as caught:
            asked()
        assert caught.value.code is Code.TENANT_KILLED
        assert "alice" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_what_was_purged_meanwhile_may_be_asked_again():
    """By a kill that was lifted since, or because the tenant came to another link."""
    revocations = Revocations(Registry(), "eu")
    revocations.register(ACME)
    with pytest.raises(KcmError, match="purged while this was under way; ask again") as caught:
        revocations.still("acme", 7)
    assert caught.value.code is Code.TENANT_UNAVAILABLE
    assert caught.value.code in RETRYABLE
