"""Requests without a key: what plain applications may do at a Gateway."""

from kcm_killswitch.model.registry import Registry
from kcm_schemas import data_subjects
from kcm_schemas.codes import Code

from tests.unit.app_rig import app, channel, following
from tests.unit.refusals import refusal, refused
from tests.unit.test_gateway_applications import ask, bus, gateway, plain

__all__ = ("bus", "gateway")

FIELDS = ("plain", "revoked", "regions", "not_after_ms")


async def test_a_request_without_a_key_needs_a_plain_application(gateway):
    subject = data_subjects.gateway("eu", "encrypt", "acme", "crm")
    error = await refusal(gateway.handle(subject, plain(gateway)))
    assert error.code is Code.FORBIDDEN
    assert "no plain application may encrypt" in error.detail
    entry = app("raw", "acme/crm", plain=True)
    gateway.registry.put(entry)
    await gateway.handle(subject, plain(gateway))
    assert gateway.audit.actors == [None]
    told = [(kind, fields["detail"]) for kind, fields in gateway.audit.all]
    assert told[0][0] == "trust.refused"
    assert told[1] == ("data.encrypt", "plain")
    for fields in ({"revoked": True}, {"plain": False}, {"not_after_ms": 1}, {"regions": ["us"]}):
        last = gateway.registry.known(("app", "raw"))
        gateway.registry.put(following(last, **({"plain": True} | fields)))
        assert await refused(gateway.handle(subject, plain(gateway))) is Code.FORBIDDEN
        last = gateway.registry.known(("app", "raw"))
        gateway.registry.put(following(last, **{name: getattr(entry, name) for name in FIELDS}))
        await gateway.handle(subject, plain(gateway))


async def test_a_plain_application_that_a_core_knows_is_not_refused_for_good(gateway):
    """Where the broker lost its entry, this Gateway has it again in a moment."""
    subject = data_subjects.gateway("eu", "encrypt", "acme", "crm")
    theirs = Registry()
    theirs.put(app("raw", "acme/crm", plain=True))
    own = gateway.registry.digests
    gateway.lease.changed(own)
    now = gateway.clock.elapsed()
    gateway.lease.heard("core-eu", own, own, 9.0, now)
    assert await refused(gateway.handle(subject, plain(gateway))) is Code.FORBIDDEN
    gateway.lease.heard("core-eu", theirs.digests, own, 9.0, now)
    assert await refused(gateway.handle(subject, plain(gateway))) is Code.UNAVAILABLE


async def test_a_plain_application_may_use_its_key_too(gateway, bus):
    gateway.registry.put(app("raw", "acme/crm", plain=True))
    assert (await ask(bus, channel(bus, "raw"))).records == [b"secret"]
    assert gateway.audit.actors == ["raw"]


async def test_keyless_garbage_makes_no_event_each(gateway):
    for number in range(1000):
        subject = data_subjects.gateway("eu", "decrypt", f"t{number}", "crm")
        assert await refused(gateway.handle(subject, b"\xc1")) is Code.FORBIDDEN
    assert len(gateway.audit.all) < 40
    assert gateway.audit.events == []
