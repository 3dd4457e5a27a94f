"""The credentials with which brokers let an application in: ``kcm app credentials``, and beside."""

import json
from pathlib import Path

import pytest
from kcm.exit_codes import Exit
from kcm_broker import signers
from kcm_broker.claims import GRANT_TAG, verify_user
from kcm_broker.roles import Role
from kcm_runtime.nats import credentials
from kcm_runtime.nats.login import Login

from tests.unit.operator_rig import Desk
from tests.unit.test_cli_apps import desk, held

__all__ = ["desk"]

CREATE = ("app", "create", "shop", "--grant", "acme/crm", "--grant", "acme/hr:decrypt")
TAGS = ["decrypt.acme.crm", "decrypt.acme.hr", "encrypt.acme.crm"]


@pytest.fixture
def able(desk: Desk) -> Desk:
    """The operator has the keys that sign credentials in both regions."""
    desk.system.let_sign("eu", "us")
    return desk


def tags(desk: Desk, path: Path, region: str = "eu", role: Role = Role.APPLICATION) -> list[str]:
    """Verify a credentials file as the broker of the region does; return its grants."""
    mine = signers.read(desk.system.directory / f"{region}.signers")
    found = credentials.read(path)
    now_s = desk.system.clock.unix_ms() // 1000
    claims = verify_user(found.token, mine.account, {mine.keys[role].public}, now_s)
    assert claims.subject == found.key.public
    assert claims.name == "shop"
    assert claims.expires == -(-held(desk, region).not_after_ms // 1000)
    assert claims.not_before == held(desk, region).not_before_ms // 1000
    return [tag.removeprefix(f"{GRANT_TAG}:") for tag in claims.body["tags"]]


def creds() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*.creds") if path.parts[0] != "system")


def mine(desk: Desk) -> list[str]:
    """The credentials files that were written beside those of the system itself."""
    own = {f"{region}.{user}.creds" for region in ("eu", "us") for user in ("app", "operator")}
    return [path for path in creds() if Path(path).name not in own]


def test_a_new_application_gets_a_file_for_each_region_beside_its_key(able: Desk) -> None:
    code, _, err = able.run(*CREATE, "-o", "table")
    assert code == Exit.OK
    assert mine(able) == ["shop.eu.creds", "shop.us.creds"]
    for region in ("eu", "us"):
        path = Path(f"shop.{region}.creds")
        assert tags(able, path, region) == TAGS
        assert path.stat().st_mode & 0o777 == 0o600
        assert f"{region} lets it in with {path}" in err
    assert "kcm app credentials" not in err


def test_each_region_has_a_key_of_its_own_that_a_repetition_keeps(able: Desk) -> None:
    able.run(*CREATE)
    before = {path: Path(path).read_bytes() for path in mine(able)}
    assert len({credentials.read(Path(path)).key.public for path in before}) == 2
    able.run(*CREATE)
    assert {path: Path(path).read_bytes() for path in mine(able)} == before


def test_the_files_of_an_own_key_are_beside_it(able: Desk) -> None:
    Path("keys").mkdir()
    assert able.run(*CREATE, "--key", "keys/shop.key")[0] == Exit.OK
    assert mine(able) == ["keys/shop.eu.creds", "keys/shop.us.creds"]


def test_changed_grants_are_in_new_credentials_of_the_same_key(able: Desk) -> None:
    able.run(*CREATE)
    key = credentials.read(Path("shop.eu.creds")).key.public
    code, _, err = able.run("app", "change", "shop", "--withdraw", "acme/hr", "-o", "table")
    assert code == Exit.OK
    assert "`kcm app credentials shop`" in err
    assert tags(able, Path("shop.eu.creds")) == TAGS, "the command does not know where they are"
    code, out, _ = able.run("app", "credentials", "shop")
    assert code == Exit.OK
    assert json.loads(out) == [
        {"region": region, "file": f"shop.{region}.creds"} for region in ("eu", "us")
    ]
    assert tags(able, Path("shop.eu.creds")) == ["decrypt.acme.crm", "encrypt.acme.crm"]
    assert credentials.read(Path("shop.eu.creds")).key.public == key


def test_a_changed_validity_is_in_new_credentials(able: Desk) -> None:
    able.run(*CREATE)
    able.run("app", "change", "shop", "--days", "3")
    assert able.run("app", "credentials", "shop")[0] == Exit.OK
    assert tags(able, Path("shop.eu.creds")) == TAGS
    assert tags(able, Path("shop.us.creds"), "us") == TAGS


def test_the_application_of_the_context_has_its_files_where_the_context_names_them(
    able: Desk,
) -> None:
    able.system.name_app("shop")
    directory = able.system.directory
    code, _, err = able.run(*CREATE, "-o", "table")
    assert code == Exit.OK
    assert mine(able) == []
    for region in ("eu", "us"):
        assert f"{region} lets it in with {directory / region}.app.creds" in err
        assert tags(able, directory / f"{region}.app.creds", region) == TAGS
        at = able.system.context().app_address(region)
        public = credentials.read(directory / f"{region}.app.creds").key.public
        assert Login(at).options()["inbox_prefix"] == f"_INBOX.application.{public}"
    able.run("app", "change", "shop", "--withdraw", "acme/hr")
    assert "decrypt.acme.hr" not in tags(able, directory / "eu.app.creds")


def test_a_directory_is_chosen_and_made(able: Desk) -> None:
    able.run(*CREATE)
    code, out, _ = able.run("app", "credentials", "shop", "--dir", "deep/down")
    assert code == Exit.OK
    assert [one["file"] for one in json.loads(out)] == [
        f"deep/down/shop.{region}.creds" for region in ("eu", "us")
    ]
    assert tags(able, Path("deep/down/shop.us.creds"), "us") == TAGS
    assert Path("deep").stat().st_mode & 0o777 == 0o700


def test_a_plain_application_gets_credentials_for_clients_without_its_key(able: Desk) -> None:
    assert able.run(*CREATE, "--plain")[0] == Exit.OK
    assert mine(able) == [
        f"shop.{region}.{end}" for region in ("eu", "us") for end in ("creds", "plain.creds")
    ]
    assert tags(able, Path("shop.eu.creds")) == TAGS
    assert tags(able, Path("shop.eu.plain.creds"), role=Role.PLAIN) == TAGS
    code, out, _ = able.run("app", "credentials", "shop", "--dir", "all")
    assert code == Exit.OK
    assert len(json.loads(out)) == 4


def test_only_the_regions_of_an_application_let_it_in(able: Desk) -> None:
    assert able.run(*CREATE, "--region", "us")[0] == Exit.OK
    assert mine(able) == ["shop.us.creds"]


def test_without_signers_the_command_that_writes_them_is_named(desk: Desk) -> None:
    code, _, err = desk.run(*CREATE, "-o", "table")
    assert code == Exit.OK
    assert "`kcm app credentials shop` writes what the brokers let it in with: eu, us" in err
    assert mine(desk) == []
    code, _, err = desk.run("app", "credentials", "shop", "-o", "table")
    assert code == Exit.USAGE
    assert "names no `signers`" in err
    assert "an operator with the keys" in err
    assert mine(desk) == []


def test_with_the_signers_of_one_region_the_other_one_is_named(desk: Desk) -> None:
    desk.system.let_sign("us")
    code, _, err = desk.run(*CREATE)
    assert code == Exit.OK
    assert mine(desk) == ["shop.us.creds"]
    notes = [json.loads(line) for line in err.splitlines()]
    assert {"without_credentials": ["eu"]} in notes
    assert {"region": "us", "credentials": "shop.us.creds"} in notes


def test_a_revoked_application_is_refused(able: Desk) -> None:
    able.run(*CREATE)
    before = Path("shop.eu.creds").read_bytes()
    assert able.run("app", "revoke", "shop")[0] == Exit.OK
    assert Path("shop.eu.creds").read_bytes() == before
    code, _, err = able.run("app", "credentials", "shop", "--dir", "new", "-o", "table")
    assert code == Exit.REFUSED
    assert "was revoked for good" in err
    assert not Path("new").exists()


def test_an_unknown_application_is_refused_with_a_hint(able: Desk) -> None:
    code, _, err = able.run("app", "credentials", "shop", "-o", "table")
    assert code == Exit.REFUSED
    assert "kcm app list" in err
    assert mine(able) == []


def test_an_entry_that_only_was_prepared_lets_nothing_in(able: Desk) -> None:
    create = ("app", "create", "shop", "--grant", "*/crm")
    assert able.run(*create, "--prepare", "entry")[0] == Exit.OK
    assert mine(able) == []
    able.system.name_app("shop")
    assert able.run("app", "approve", "entry", "--dry-run")[0] == Exit.OK
    path = able.system.directory / "eu.app.creds"
    before = path.read_bytes()
    assert able.run("app", "approve", "entry", "--yes")[0] == Exit.OK
    assert path.read_bytes() != before
    assert tags(able, path) == ["decrypt.*.crm", "encrypt.*.crm"]


def test_an_approved_application_of_another_context_is_named_with_the_command(able: Desk) -> None:
    able.run("app", "create", "shop", "--grant", "*/crm", "--prepare", "entry")
    code, _, err = able.run("app", "approve", "entry", "--yes", "-o", "table")
    assert code == Exit.OK
    assert "`kcm app credentials shop`" in err
    assert mine(able) == []


def test_a_place_that_cannot_be_written_is_said_after_the_entry_is_stored(able: Desk) -> None:
    Path("shop.eu.creds").mkdir()
    code, out, err = able.run(*CREATE, "-o", "table")
    assert code == Exit.USAGE
    assert "created" in out
    assert held(able).grants
    assert "shop.eu.creds is not a file" in err
    assert "the entry is stored" in err
    assert "kcm app credentials shop" in err
    Path("shop.eu.creds").rmdir()
    assert able.run("app", "credentials", "shop")[0] == Exit.OK
    assert tags(able, Path("shop.eu.creds")) == TAGS


@pytest.mark.parametrize("how", ["no file", "others can read it", "no signers"])
def test_signers_that_cannot_be_used_are_named(able: Desk, how: str) -> None:
    path = able.system.directory / "eu.signers"
    match how:
        case "no file":
            path.unlink()
        case "others can read it":
            path.chmod(0o604)
        case _:
            path.write_text("{}")
    code, _, err = able.run(*CREATE, "-o", "table")
    assert code == Exit.USAGE
    assert str(path) in err
    assert "the entry is stored" in err
    assert held(able, "us").grants
