"""``kcm app``: created, changed, rotated, revoked, listed and shown, in all regions."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm._internal import app_entries
from kcm.exit_codes import Exit
from kcm_killswitch.model.registry_objects import replaces
from kcm_schemas.admin.apps import AppPage, AppQuery, AppRow
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.admin.tenants import ServiceListQuery, ServicePage, ServiceRow
from kcm_schemas.app import App
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import read_signed
from kcm_trust.identity import Identity

from tests.unit.operator_rig import Cores, Desk, app_view


@pytest.fixture
def desk(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The regions keep applications as Cores do."""
    monkeypatch.chdir(tmp_path)
    apps: dict[str, dict[str, App]] = {region: {} for region in desk.system.cores}
    desk.apps = apps  # type: ignore[attr-defined]
    desk.cores = Cores(desk.system)  # type: ignore[attr-defined]
    desk.signer = desk.system.alice  # type: ignore[attr-defined]

    def put(request: AdminRequest, operator: str) -> Message:
        entry = decode(App, read_signed(decode(PutStatement, request.payload).statement).body)
        known = apps[request.region].get(entry.app)
        if known not in (None, entry) and not replaces(known, entry):
            raise KcmError(Code.CONFLICT, "the app exists already")
        apps[request.region][entry.app] = entry
        return Empty()

    stolen: set[str] = set()
    desk.stolen = stolen  # type: ignore[attr-defined]

    def show(request: AdminRequest, operator: str) -> Message:
        name = decode(AppQuery, request.payload).app
        entry = apps[request.region].get(name)
        if entry is None:
            raise KcmError(Code.UNKNOWN_APP)
        signer = desk.signer  # type: ignore[attr-defined]
        return app_view(desk.system, request.region, entry, signer, held=name in stolen)

    def page(request: AdminRequest, operator: str) -> Message:
        rows = [
            AppRow(
                **{name: getattr(one, name) for name in AppRow.model_fields if hasattr(one, name)}
                | {"grants": len(one.grants), "region": request.region}
                | {"forked": False, "held": one.app in stolen}
            )
            for _, one in sorted(apps[request.region].items())
        ]
        return AppPage(apps=rows, total=len(rows), more=False)

    desk.system.everywhere("app", "put", put)
    desk.system.everywhere("app", "show", show)
    desk.system.everywhere("app", "list", page)
    return desk


def held(desk: Desk, region: str = "eu", name: str = "shop") -> App:
    return desk.apps[region][name]  # type: ignore[attr-defined]


def test_an_application_is_created_in_every_region_once(desk: Desk) -> None:
    create = ("app", "create", "shop", "--grant", "acme/crm", "--grant", "acme/hr:decrypt")
    code, out, _ = desk.run(*create)
    assert code == Exit.OK
    assert {one["change"] for one in json.loads(out)} == {"created"}
    assert held(desk, "eu") == held(desk, "us")
    assert Path("shop.key").stat().st_mode & 0o777 == 0o600
    assert len(held(desk).public_key) == 32
    assert list(map(app_entries.written, held(desk).grants)) == ["acme/crm", "acme/hr:decrypt"]
    code, out, _ = desk.run(*create)
    assert code == Exit.OK
    assert {one["change"] for one in json.loads(out)} == {"unchanged"}
    assert held(desk).revision == 1


def test_a_grant_for_a_service_that_no_region_has_is_a_warning(desk: Desk) -> None:
    def listed(request: AdminRequest, operator: str) -> Message:
        query = decode(ServiceListQuery, request.payload)
        if query.tenant != "acme":
            raise KcmError(Code.UNKNOWN_TENANT)
        rows = [ServiceRow(tenant="acme", service="crm", revision=1)]
        return ServicePage(services=rows if query.after < "crm" else [], total=1, more=False)

    desk.system.everywhere("service", "list", listed)
    wanted = ("--grant", "acme/crm", "--grant", "acme/cmr", "--grant", "acem/crm")
    code, _, err = desk.run("app", "create", "shop", *wanted, "-o", "table")
    assert code == Exit.OK
    assert "service acme/cmr yet" in err
    assert "service acem/crm yet" in err
    assert "acme/crm" not in err


def test_another_application_of_the_name_is_a_conflict_that_says_what_differs(desk: Desk) -> None:
    assert desk.run("app", "create", "shop", "--grant", "acme/crm")[0] == Exit.OK
    code, _, err = desk.run("app", "create", "shop", "--grant", "acme/hr", "-o", "table")
    assert code == Exit.REFUSED
    assert "differs in: grants" in err
    assert "kcm app change shop" in err


def test_grants_are_changed_and_withdrawn(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    code, _, _ = desk.run(
        "app", "change", "shop", "--grant", "acme/hr:encrypt", "--withdraw", "acme/crm"
    )
    assert code == Exit.OK
    assert list(map(app_entries.written, held(desk, "us").grants)) == ["acme/hr:encrypt"]
    assert held(desk).revision == 2
    code, _, err = desk.run("app", "change", "shop", "--withdraw", "acme/crm", "-o", "table")
    assert code == Exit.USAGE
    assert "no grant for acme/crm" in err


def test_a_key_is_rotated_to_a_new_file_or_a_public_key(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    before = held(desk).public_key
    assert desk.run("app", "rotate", "shop")[0] == Exit.USAGE
    assert desk.run("app", "rotate", "shop", "--key", "shop-2.key")[0] == Exit.OK
    assert held(desk).public_key != before
    assert desk.run("app", "rotate", "shop", "--public-key", "ab" * 32)[0] == Exit.OK
    assert held(desk).public_key == b"\xab" * 32
    for bad in ("ab", "zz" * 32, ""):
        assert desk.run("app", "rotate", "shop", "--public-key", bad)[0] == Exit.USAGE


def test_an_application_is_revoked_and_stays_as_revoked(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    assert desk.run("app", "revoke", "shop")[0] == Exit.OK
    assert held(desk).revoked
    (row,) = json.loads(desk.run("app", "list")[1])
    assert row["revoked"]
    assert "revoked" in desk.run("app", "list", "-o", "table")[1]
    shown = json.loads(desk.run("app", "show", "shop")[1])
    assert (shown["state"], shown["grants"][0]["tenant"]) == ("revoked", "acme")


def test_regions_that_differ_are_brought_together(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    del desk.apps["us"]["shop"]  # type: ignore[attr-defined]
    assert desk.run("app", "change", "shop", "--plain")[0] == Exit.OK
    desk.apps["us"]["shop"] = held(desk).model_copy(update={"regions": ["us"]})  # type: ignore[attr-defined]
    assert desk.run("app", "change", "shop", "--no-plain", "--days", "3")[0] == Exit.OK
    assert held(desk, "eu") == held(desk, "us")
    assert not held(desk).plain


def test_a_plain_application_is_said_loudly(desk: Desk) -> None:
    code, _, err = desk.run(
        "app", "create", "shop", "--grant", "acme/crm", "--plain", "-o", "table"
    )
    assert code == Exit.OK
    assert "any client of the broker may use its grants" in err
    assert "plain" in desk.run("app", "list", "-o", "table")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "shop"),
        ("create", "shop", "--grant", "acme"),
        ("create", "shop", "--grant", "*/crm"),  # alone
        ("create", "a.b", "--grant", "acme/crm"),
        ("create", "shop", "--grant", "acme/crm", "--days", "0"),
        ("create", "shop", "--grant", "acme/crm", "--region", "mars"),
        ("create", "shop", "--grant", "acme/crm", "--key", "k", "--public-key", "ab" * 32),
        ("create", "shop", "--grant", "acme/crm", "--key", "/"),
    ],
)
def test_wrong_usage_creates_nothing(desk: Desk, arguments: tuple[str, ...]) -> None:
    assert desk.run("app", *arguments)[0] == Exit.USAGE
    assert not desk.apps["eu"]  # type: ignore[attr-defined]


def test_a_grant_for_every_tenant_is_prepared_and_approved(desk: Desk) -> None:
    create = ("app", "create", "shop", "--grant", "*/crm", "--prepare", "entry")
    code, _, err = desk.run(*create, "-o", "table")
    assert code == Exit.OK
    assert "kcm app approve entry" in err
    assert not desk.apps["eu"]  # type: ignore[attr-defined]
    before = Path("entry").read_bytes()
    assert desk.run(*create)[0] == Exit.USAGE, "no file is replaced"
    assert Path("entry").read_bytes() == before
    code, out, _ = desk.run("app", "approve", "entry", "--dry-run")
    assert code == Exit.OK
    shown = json.loads(out)
    assert (shown["app"], shown["grants"][0]["tenant"], shown["plain"]) == ("shop", "*", False)
    assert desk.run("app", "approve", "entry")[0] == Exit.USAGE, "it is not confirmed"
    assert not desk.apps["eu"]  # type: ignore[attr-defined]
    assert desk.run("app", "approve", "entry", "--yes")[0] == Exit.OK
    assert held(desk).reaches_every_tenant
    Path("entry").write_bytes(b"nothing")
    assert desk.run("app", "approve", "entry", "--yes")[0] == Exit.CHECK_FAILED


def test_a_plain_entry_is_said_to_be_plain_before_it_is_approved(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "*/crm", "--plain", "--prepare", "entry")
    _, _, err = desk.run("app", "approve", "entry", "--dry-run", "-o", "table")
    assert "any client of the broker may use its grants" in err


def test_what_a_core_claims_is_not_signed(desk: Desk) -> None:
    """A Core makes an entry with a thief's key and a higher revision: it is no operator's."""
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    good = held(desk)
    thief = good.model_copy(update={"revision": 2, "public_key": b"t" * 32})
    desk.apps["us"]["shop"] = thief  # type: ignore[attr-defined]
    key = Ed25519PrivateKey.generate()
    desk.signer = Identity("alice", key, desk.system.alice.system)  # type: ignore[attr-defined]
    code, _, _ = desk.run("app", "change", "shop", "--days", "3")
    assert code != Exit.OK
    assert held(desk) == good


def test_verbs_of_one_service_are_joined(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm:encrypt", "--grant", "acme/crm:decrypt")
    assert list(map(app_entries.written, held(desk).grants)) == ["acme/crm"]


def test_a_revoked_application_does_not_come_back(desk: Desk) -> None:
    create = ("app", "create", "shop", "--grant", "acme/crm")
    desk.run(*create)
    desk.run("app", "revoke", "shop")
    for command in (
        create,
        ("app", "change", "shop", "--grant", "acme/hr"),
        ("app", "rotate", "shop", "--key", "new.key"),
    ):
        code, _, err = desk.run(*command, "-o", "table")
        assert code == Exit.REFUSED
        assert "revoked for good" in err
    assert not Path("new.key").exists()


def test_no_key_is_made_for_an_application_that_exists(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    Path("shop.key").unlink()
    code, _, err = desk.run("app", "create", "shop", "--grant", "acme/crm", "-o", "table")
    assert code == Exit.REFUSED
    assert "differs in: public_key" in err
    assert not Path("shop.key").exists()


def test_the_key_that_it_has_is_no_new_key(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    assert desk.run("app", "rotate", "shop", "--key", "shop.key")[0] == Exit.USAGE
    assert desk.run("app", "change", "shop")[0] == Exit.USAGE


@pytest.mark.parametrize("verb", ["change", "revoke", "show"])
def test_an_unknown_application_is_told_with_a_hint(desk: Desk, verb: str) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    more = ("--days", "3") if verb == "change" else ()
    code, _, err = desk.run("app", verb, "shopp", *more, "-o", "table")
    assert code == Exit.REFUSED
    assert "kcm app list" in err


def test_a_region_that_does_not_reply_does_not_keep_the_others_from_a_revocation(
    desk: Desk,
) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    desk.system.cores["eu"].down = True
    code, _, _ = desk.run("app", "revoke", "shop")
    assert code not in (Exit.OK, Exit.FAULT)
    assert held(desk, "us").revoked
    assert not held(desk, "eu").revoked


def test_an_application_whose_key_is_held_is_shown_as_held(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    desk.stolen.add("shop")  # type: ignore[attr-defined]
    _, out, _ = desk.run("app", "list")
    assert json.loads(out)[0]["state"] == "held"
    _, out, _ = desk.run("app", "show", "shop")
    assert (json.loads(out)["state"], json.loads(out)["held"]) == ("held", True)
