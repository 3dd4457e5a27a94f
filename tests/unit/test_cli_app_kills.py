"""``kcm kill --app`` and ``--instance``, and the hold of ``kcm app revoke``."""

import json

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.control import Hold
from kcm_schemas.names import key_target

from tests.unit.operator_rig import Desk
from tests.unit.test_cli_apps import desk, held

__all__ = ["desk"]


def kept_holds(desk: Desk) -> list[Hold]:
    return [one.hold for one in desk.cores.held.values()]  # type: ignore[attr-defined]


def target_of(desk: Desk, region: str = "eu") -> str:
    return key_target("shop", held(desk, region).public_key)


def test_a_revocation_takes_the_key_out_of_service_before_the_entry_changes(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    code, _, err = desk.run("app", "revoke", "shop", "--reason", "stolen", "-o", "table")
    assert code == Exit.OK
    (hold,) = kept_holds(desk)
    assert (hold.scope, hold.target, hold.reason) == ("app", target_of(desk), "stolen")
    assert held(desk).revoked
    assert err.index("placing hold") == 0


def test_a_revocation_is_one_json_document(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    _, out, _ = desk.run("app", "revoke", "shop")
    shown = json.loads(out)
    assert shown["hold"]["complete"]
    assert {one["change"] for one in shown["entries"]} == {"replaced"}
    desk.system.demote("alice")
    _, out, _ = desk.run("app", "revoke", "shop")
    assert {one["change"] for one in json.loads(out)["entries"]} == {"unchanged"}


def test_an_operator_without_the_role_is_told_who_may_hold_the_key(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    desk.system.demote("alice")
    code, _, err = desk.run("app", "revoke", "shop", "-o", "table")
    assert code == Exit.OK
    assert "`kcm kill --app shop`" in err
    assert kept_holds(desk) == []
    assert held(desk).revoked


def test_a_kill_of_an_application_names_the_key_that_it_has_now(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    assert desk.run("kill", "--app", "shop", "--reason", "stolen")[0] == Exit.OK
    before = target_of(desk)
    desk.run("app", "rotate", "shop", "--key", "new.key")
    assert [one.target for one in kept_holds(desk)] == [before]
    assert target_of(desk) != before
    assert not held(desk).revoked


def test_a_kill_reports_a_region_in_which_the_application_has_another_key(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    desk.system.cores["us"].down = True
    desk.run("app", "rotate", "shop", "--key", "new.key")
    desk.system.cores["us"].down = False
    code, _, err = desk.run("kill", "--app", "shop", "-o", "table")
    assert code == Exit.OK
    assert [one.target for one in kept_holds(desk)] == [target_of(desk)]
    assert f"kcm kill --app {target_of(desk, 'us')}" in err


@pytest.mark.parametrize("what", ["--app", "--instance"])
def test_a_key_that_nothing_has_is_held_and_reported(desk: Desk, what: str) -> None:
    name = "shop" if what == "--app" else "core-eu"
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    code, _, err = desk.run("kill", what, f"{name}.{'3b' * 32}", "-o", "table")
    assert code == Exit.OK
    assert f"{name} has this key now" in err
    assert len(kept_holds(desk)) == 1
    if what == "--app":
        _, _, err = desk.run("kill", what, target_of(desk), "-o", "table")
        assert "has this key now" not in err


def test_a_key_that_is_given_asks_no_region(desk: Desk) -> None:
    public = "3b" * 32
    assert desk.run("kill", "--app", f"shop.{public.upper()}")[0] == Exit.OK
    assert desk.run("kill", "--app", kept_holds(desk)[0].target)[0] == Exit.OK
    wanted = key_target("shop", bytes.fromhex(public))
    assert [one.target for one in kept_holds(desk)] == [wanted, wanted]


@pytest.mark.parametrize("name", ["shop.", "shop.3b", "Shop", "sh*p", f"shop.{'zz' * 16}", "a.b.c"])
def test_what_names_no_key_is_refused_before_any_request(desk: Desk, name: str) -> None:
    code, _, err = desk.run("kill", "--app", name, "-o", "table")
    assert code == Exit.USAGE
    assert "hex digits" in err
    assert not any(core.requests for core in desk.system.cores.values())


def test_a_kill_of_an_unknown_application_changes_nothing(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    code, _, err = desk.run("kill", "--app", "shopp", "-o", "table")
    assert code == Exit.REFUSED
    assert "did you mean shop" in err
    desk.system.cores["us"].down = True
    code, _, err = desk.run("kill", "--app", "shopp", "-o", "table")
    assert code == Exit.UNAVAILABLE
    assert "--app shopp.KEY" in err
    assert kept_holds(desk) == []


def test_a_kill_of_an_instance_takes_its_key_from_the_roster(desk: Desk) -> None:
    assert desk.run("kill", "--instance", "core-eu")[0] == Exit.OK
    public = desk.system.identities["core-eu"].public
    assert [one.target for one in kept_holds(desk)] == [key_target("core-eu", public)]
    code, _, err = desk.run("kill", "--instance", "gw-xx", "-o", "table")
    assert code == Exit.REFUSED
    assert "kcm roster show" in err


def test_a_dry_run_for_an_application_shows_the_instances_and_holds_nothing(desk: Desk) -> None:
    desk.run("app", "create", "shop", "--grant", "acme/crm")
    code, out, _ = desk.run("kill", "--app", "shop", "--dry-run", "-o", "json")
    assert code == Exit.OK
    assert json.loads(out)["eu"]["incarnations"]
    assert kept_holds(desk) == []


@pytest.mark.parametrize("more", [("--link", "root"), ("--instance", "core-eu"), ("acme",)])
def test_a_kill_has_one_target(desk: Desk, more: tuple[str, ...]) -> None:
    assert desk.run("kill", "--app", "shop", *more)[0] == Exit.USAGE
