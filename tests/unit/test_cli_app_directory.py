"""The directory that the host of an application needs: ``kcm app credentials --host-dir``."""

import json
from pathlib import Path

import pytest
from kcm import ClientContext
from kcm.exit_codes import Exit
from kcm_broker.certificates import Authority
from kcm_runtime.clock import SystemClock
from kcm_runtime.files.identity_file import create_identity, load_identity
from kcm_runtime.nats.login import Login
from kcm_schemas.codec import encode
from kcm_schemas.signed import Kind

from tests.unit.operator_rig import Desk
from tests.unit.test_cli_app_credentials import CREATE, TAGS, able, tags
from tests.unit.test_cli_apps import desk, held

__all__ = ["able", "desk"]

HOST = Path("host")
WRITE = ("app", "credentials", "shop", "--host-dir", str(HOST))


@pytest.fixture
def made(able: Desk) -> Desk:
    """The application exists, and its key is here."""
    assert able.run(*CREATE)[0] == Exit.OK
    return able


def tree(directory: Path = HOST) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def refused(desk: Desk, *words: str, arguments: tuple[str, ...] = WRITE) -> None:
    """The command is wrong usage, says so, and changes nothing."""
    before = tree(Path())
    code, _, err = desk.run(*arguments, "-o", "json")
    said = json.loads(err.splitlines()[-1])
    assert (code, said["error"]) == (Exit.USAGE, "usage")
    for word in words:
        assert word in said["detail"] + said["hint"]
    assert tree(Path()) == before


def test_one_directory_has_all_that_a_host_needs(made: Desk) -> None:
    ca = made.system.directory / "eu-ca.pem"
    ca.write_bytes(Authority.create("eu-ca", 10, SystemClock()).certificate)
    context_file = made.system.context_file
    context_file.write_text(
        context_file.read_text().replace("[regions.eu]\n", '[regions.eu]\nca = "eu-ca.pem"\n')
    )
    code, out, _ = made.run(*WRITE)
    assert code == Exit.OK
    assert json.loads(out) == {
        "directory": "host",
        "context": "host/context.toml",
        "key": "host/app.key",
        "credentials": [
            {"region": region, "file": f"host/{region}/app.creds"} for region in ("eu", "us")
        ],
        "without_credentials": [],
    }
    assert set(tree()) == {
        "context.toml", "roster", "app.key", "eu/ca.pem", "eu/app.creds", "us/app.creds",
    }  # fmt: skip
    for path in (HOST, *HOST.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    moved = HOST.rename("elsewhere")
    here = ClientContext.load(moved / "context.toml")
    known = made.system.context()
    assert (here.system, here.root_public) == (known.system, known.root_public)
    assert (here.app_name, here.operator_name, here.default_region) == ("shop", "", "eu")
    assert here.highest()[0] == known.highest()[0]
    identity = here.app_identity()
    assert identity is not None
    assert identity.public == held(made).public_key
    assert here.ca_path("eu") == moved / "eu" / "ca.pem"
    assert (moved / "eu" / "ca.pem").read_bytes() == ca.read_bytes()
    for region in ("eu", "us"):
        assert here.app_address(region).url == known.app_address(region).url
        assert tags(made, moved / region / "app.creds", region) == TAGS
        assert Login(here.app_address(region)).options()["inbox_prefix"].startswith("_INBOX.")


def test_a_repetition_changes_nothing_but_what_is_new(made: Desk) -> None:
    assert made.run(*WRITE)[0] == Exit.OK
    before = tree()
    assert made.run(*WRITE)[0] == Exit.OK
    assert tree() == before
    made.run("app", "change", "shop", "--withdraw", "acme/hr")
    context_file = HOST / "context.toml"
    context_file.write_text(context_file.read_text().replace('region = "eu"', 'region = "us"'))
    assert made.run(*WRITE)[0] == Exit.OK
    after = tree()
    assert {name for name in after if after[name] != before[name]} == {
        "context.toml", "eu/app.creds", "us/app.creds",
    }  # fmt: skip
    assert ClientContext.load(context_file).default_region == "us"


def test_a_key_that_is_elsewhere_is_named_and_a_host_keeps_its_own(able: Desk) -> None:
    Path("away").mkdir()
    assert able.run(*CREATE, "--key", "away/mine")[0] == Exit.OK
    code, _, err = able.run(*WRITE, "-o", "table")
    assert code == Exit.OK
    assert "its private key is not here: put it at host/app.key" in err
    assert "app.key" not in tree()
    assert able.run(*WRITE, "--key", "away/mine")[0] == Exit.OK
    assert load_identity("shop", "host/app.key", "acme").public == held(able).public_key
    Path("away/mine").unlink()
    assert json.loads(able.run(*WRITE)[1])["key"] == "host/app.key"


def test_no_other_key_is_copied_or_replaced(made: Desk) -> None:
    create_identity("shop", "other.key", "acme")
    wrong = (*WRITE, "--key", "other.key")
    refused(made, "other.key is not the present key of shop", arguments=wrong)
    assert not HOST.exists()
    assert made.run(*WRITE)[0] == Exit.OK
    assert made.run("app", "rotate", "shop", "--key", "new.key")[0] == Exit.OK
    refused(made, "host/app.key is not the present key", arguments=(*WRITE, "--key", "new.key"))
    (HOST / "app.key").rename("old.key")
    assert made.run(*WRITE, "--key", "new.key")[0] == Exit.OK
    assert (HOST / "app.key").read_bytes() == Path("new.key").read_bytes()


def test_a_directory_of_something_else_is_left_alone(made: Desk) -> None:
    made.run("app", "create", "other", "--grant", "acme/crm")
    HOST.mkdir()
    (HOST / "thesis.txt").write_text("years of work")
    refused(made, "has files", "new or empty directory")
    for place in (made.system.directory, "theirs"):
        made.run("app", "credentials", "other", "--host-dir", "theirs")
        refused(made, "application shop", arguments=(*WRITE[:-1], str(place)))


def test_a_directory_that_others_may_change_is_refused(made: Desk) -> None:
    HOST.mkdir()
    HOST.chmod(0o777)
    refused(made, "other users can change it")
    HOST.chmod(0o755)
    assert made.run(*WRITE)[0] == Exit.OK


def test_a_newer_roster_of_the_host_is_kept(made: Desk) -> None:
    assert made.run(*WRITE)[0] == Exit.OK
    newer = made.system.roster.model_copy(update={"version": 7})
    raw = encode(made.system.root.sign(Kind.ROSTER, newer))
    (HOST / "roster").write_bytes(raw)
    assert made.run(*WRITE)[0] == Exit.OK
    assert (HOST / "roster").read_bytes() == raw
    (HOST / "roster").write_bytes(b"cut")
    assert made.run(*WRITE)[0] == Exit.OK
    assert (HOST / "roster").read_bytes() == made.system.context().highest()[0]


def test_what_was_interrupted_continues(made: Desk) -> None:
    """The context comes first, and shows whose directory it is."""
    signers = made.system.directory / "us.signers"
    kept = signers.read_bytes()
    signers.write_bytes(b"cut")
    assert made.run(*WRITE)[0] == Exit.USAGE
    signers.write_bytes(kept)
    assert made.run(*WRITE)[0] == Exit.OK
    assert set(tree()) == {"context.toml", "roster", "app.key", "eu/app.creds", "us/app.creds"}


def test_a_region_whose_signers_are_not_here_is_left_out_and_named(desk: Desk) -> None:
    desk.system.let_sign("us")
    desk.run(*CREATE)
    code, out, _ = desk.run(*WRITE)
    assert code == Exit.OK
    assert json.loads(out)["without_credentials"] == ["eu"]
    here = ClientContext.load(HOST / "context.toml")
    assert (list(here.regions), here.default_region) == (["us"], "us")


def test_without_signers_nothing_is_written(desk: Desk) -> None:
    desk.run(*CREATE)
    refused(desk, "names no `signers`")


def test_a_plain_application_has_credentials_for_clients_without_its_key(able: Desk) -> None:
    able.run(*CREATE, "--plain")
    assert able.run(*WRITE)[0] == Exit.OK
    assert {"eu/plain.creds", "us/plain.creds"} < set(tree())


@pytest.mark.parametrize("wrong", [("--key", "shop.key"), ("--dir", "a", "--host-dir", "b")])
def test_options_that_do_not_fit_are_refused(made: Desk, wrong: tuple[str, ...]) -> None:
    refused(made, "--host-dir", arguments=("app", "credentials", "shop", *wrong))
