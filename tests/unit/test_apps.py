"""Applications: what an entry may look like, what replaces it, and how it is changed."""

import pytest
from kcm._internal import app_entries
from kcm._internal.arguments import BadValue
from kcm_killswitch.model.registry import Put, Registry
from kcm_killswitch.model.registry_objects import object_digest, replaces
from kcm_schemas.app import App, AppGrant
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import KcmError
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements
from kcm_trust.verify import Untrusted, Verifier

from tests.unit.test_trust_retired import without
from tests.unit.trust_rig import VERIFIER, roster
from tests.unit.trust_table import APP
from tests.vectors.families.messages import identity

KEY = bytes(range(32))


def entry(**fields):
    return app_entries.first_entry(
        "shop", KEY, [grant("acme/crm")], ["us", "eu"], now_ms=1000, days=1
    ).model_copy(update=fields)


def grant(text):
    return app_entries.read_grant(text)


def following(known, step=1, **fields):
    named = {"revision": known.revision + step, "previous": object_digest(known)}
    return known.model_copy(update=named | fields)


@pytest.mark.parametrize(
    ("text", "verbs"),
    [
        ("acme/crm", ["decrypt", "encrypt"]),
        ("acme/*", ["decrypt", "encrypt"]),
        ("acme/crm:encrypt", ["encrypt"]),
        ("*/*", ["decrypt", "encrypt"]),
        ("acme/crm:encrypt,decrypt", ["decrypt", "encrypt"]),
    ],
)
def test_a_grant_is_read_and_written(text, verbs):
    read = grant(text)
    assert read.verbs == verbs
    assert grant(app_entries.written(read)) == read


@pytest.mark.parametrize(
    "text",
    ["acme", "a*/crm", "acme/", "/crm", "acme/c*", "acme/crm:", "acme/crm:drop", "a>/b", "a.b/c",
     "acme/crm:encrypt,", "acme/>", "ACME/crm"],
)  # fmt: skip
def test_what_is_no_grant_is_refused(text):
    with pytest.raises(BadValue, match="TENANT/SERVICE"):
        grant(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"grants": [grant("b/a"), grant("a/a")]},
        {"grants": [grant("a/a"), grant("a/a:encrypt")]},
        {"grants": [AppGrant(tenant="a", service="a", verbs=["encrypt", "decrypt"])]},
        {"grants": [AppGrant(tenant="a", service="a", verbs=["encrypt", "encrypt"])]},
        {"regions": ["us", "eu"]},
        {"regions": ["eu", "eu"]},
        {"regions": []},
        {"grants": [grant(f"a/s-{number:03}") for number in range(257)]},
    ],
)
def test_an_entry_has_one_form(fields):
    raw = encode(entry().model_copy(update=fields))
    with pytest.raises(KcmError):
        decode(App, raw)


def test_grants_cover_what_they_name_and_nothing_else():
    app = entry(grants=[grant("acme/crm:decrypt"), grant("beta/*")])
    assert app.covers("decrypt", "acme", "crm")
    assert app.covers("encrypt", "beta", "anything")
    for verb, tenant, service in (
        ("encrypt", "acme", "crm"),
        ("decrypt", "acme", "hr"),
        ("decrypt", "gamma", "crm"),
        ("decrypt", "*", "crm"),
    ):
        assert not app.covers(verb, tenant, service)
    assert entry(grants=[grant("*/crm:decrypt")]).covers("decrypt", "gamma", "crm")
    assert not entry(grants=[grant("*/crm:decrypt")]).covers("encrypt", "gamma", "crm")


@pytest.mark.parametrize(
    ("signers", "believed"),
    [
        (("admin", "security"), True),
        (("admin",), False),
        (("security",), False),
        (("admin", "core-eu"), False),
        (("admin", "nobody"), False),
    ],
)
def test_a_grant_for_every_tenant_needs_two_operators(signers, believed):
    wide = entry(grants=[grant("*/crm")])
    signed = identity(signers[0]).sign(Kind.APP, wide)
    for name in signers[1:]:
        signed = identity(name).countersign(signed)
    raw = encode(signed)
    if believed:
        assert VERIFIER.app(raw) == wide
    else:
        with pytest.raises(Untrusted):
            VERIFIER.app(raw)
    assert not believed or VERIFIER.prepared_app(raw) == wide


@pytest.mark.parametrize(
    ("signers", "gone", "grants"),
    [
        (("admin", "security"), "security", "*/crm"),
        (("admin", "security"), "admin", "*/crm"),
        (("admin", "security"), "admin", "acme/crm"),
    ],
)
def test_a_retired_signer_lends_no_role(signers, gone, grants):
    left = without(roster(), {gone}, Endorsements().retirement())
    verifier = Verifier(left, {gone: Endorsements()})
    signed = identity(signers[0]).sign(Kind.APP, entry(grants=[grant(grants)]))
    raw = encode(identity(signers[1]).countersign(signed))
    with pytest.raises(Untrusted):
        verifier.app(raw)


@pytest.mark.parametrize("name", ["root", "security", "gw-eu"])
def test_no_application_has_the_name_of_a_member(name):
    with pytest.raises(Untrusted, match="name of a member"):
        VERIFIER.app(encode(identity("admin").sign(Kind.APP, entry(app=name))))


@pytest.mark.parametrize(
    "key", [bytes(32), b"\1" + bytes(31), b"\1" + bytes(30) + b"\x80", b"\xee" + b"\xff" * 31]
)
def test_a_key_by_which_anybody_signs_is_refused(key):
    with pytest.raises(KcmError):
        decode(App, encode(entry().model_copy(update={"public_key": key})))


def test_what_is_revoked_stays_revoked():
    gone = following(entry(), revoked=True)
    assert not replaces(gone, following(gone, revoked=False))
    assert replaces(gone, following(gone))


def test_one_operator_prepares_and_revokes_what_reaches_every_tenant():
    wide = entry(grants=[grant("*/crm")])
    raw = encode(identity("admin").sign(Kind.APP, wide))
    assert VERIFIER.prepared_app(raw) == wide
    gone = following(wide, revoked=True)
    assert VERIFIER.app(encode(identity("admin").sign(Kind.APP, gone))) == gone
    with pytest.raises(Untrusted):
        VERIFIER.app(encode(identity("security").sign(Kind.APP, gone)))


def test_the_next_revision_names_the_entry_that_it_replaces():
    known = entry()
    assert replaces(known, following(known, plain=True))
    assert not replaces(known, following(known, previous=bytes(32)))
    assert not replaces(known, known)


def test_a_region_that_missed_an_entry_takes_a_higher_one():
    known = entry()
    assert replaces(known, following(following(known, plain=True), revoked=True))


def test_of_two_entries_of_one_revision_none_is_served():
    registry, one = Registry(), entry()
    registry.put(one)
    assert registry.app("shop") == one
    assert registry.put(entry(plain=True)) is Put.FORK
    assert registry.app("shop") is None
    assert registry.forked(("app", "shop"))
    assert [found.app for found in registry.apps_after("", 9)] == ["shop"]
    registry.put(entry(revision=2))
    assert registry.app("shop") == entry(revision=2)
    assert not registry.forked(("app", "shop"))


def test_applications_are_listed_by_name_and_forgotten():
    registry = Registry()
    for name in ("b", "a", "c"):
        registry.put(entry(app=name))
    assert registry.app_count == 3
    assert [one.app for one in registry.apps_after("a", 2)] == ["b", "c"]
    before = registry.digest
    assert registry.drop(entry(app="b"))
    assert [one.app for one in registry.apps_after("", 9)] == ["a", "c"]
    assert registry.app("b") is None
    assert registry.digest != before


def test_an_entry_that_all_regions_have_is_followed_by_the_next():
    known = entry()
    new = app_entries.changed({"eu": known, "us": known}, known, revoked=True)
    assert (new.revision, new.previous) == (2, object_digest(known))
    assert new.revoked


def test_the_same_entry_completes_regions_that_lack_it():
    known = entry()
    newest = following(known, plain=True)
    assert app_entries.changed({"eu": newest, "us": None}, newest, plain=True) == newest
    assert app_entries.changed({"eu": newest, "us": known}, newest, plain=True) == newest


def test_regions_that_differ_get_an_entry_that_each_can_accept():
    known = entry()
    one, other = following(known, plain=True), following(known, regions=["eu"])
    found = {"eu": one, "us": other, "ap": known}
    newest = app_entries.newest_of(found)
    for changes in ({}, {"revoked": True}, {"days": None, "plain": False}):
        fields = {name: value for name, value in changes.items() if name != "days"}
        new = app_entries.changed(found, newest, **fields)
        assert all(replaces(each, new) for each in found.values())


def test_a_grant_replaces_the_one_for_its_service_and_is_withdrawn():
    known = [grant("acme/crm"), grant("acme/hr")]
    more = app_entries.with_grants(known, [grant("acme/crm:decrypt"), grant("beta/x")])
    assert list(map(app_entries.written, more)) == ["acme/crm:decrypt", "acme/hr", "beta/x"]
    assert app_entries.without(more, ["acme/hr", "beta/x"]) == [grant("acme/crm:decrypt")]
    with pytest.raises(BadValue, match="no grant for acme/no"):
        app_entries.without(more, ["acme/no"])


def test_the_table_has_a_valid_entry():
    assert decode(App, encode(APP)) == APP
