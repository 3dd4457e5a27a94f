"""``kcm dev`` works on the development system that the chosen context is of."""

import json
from pathlib import Path

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_devsystem import system
from kcm_devsystem.commands.place import working

from tests.fakes.client import FakeSystem


class Desk:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = run(["dev", *arguments])
        return code, *self._capsys.readouterr()


@pytest.fixture
def desk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Desk:
    monkeypatch.delenv("KCM_CONTEXT", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Desk(capsys)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another system than the usual one: made, and not started."""
    place = tmp_path / "other"
    system.init(system.Options(place, regions=("eu",), cores=1))
    return place


@pytest.mark.parametrize("way", ["--context", "environment", "relative"])
def test_a_key_is_made_where_the_context_is(
    desk: Desk, other: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = other / "context.toml"
    arguments = ["key", "acme", "--kind", "softkey", "--uri"]
    match way:
        case "--context":
            arguments += ["--context", str(context)]
        case "environment":
            monkeypatch.setenv("KCM_CONTEXT", str(context))
        case _:
            monkeypatch.chdir(other)
            arguments += ["--context", "context.toml"]
    code, out, _ = desk.run(*arguments)
    assert code == Exit.OK
    assert out == f"softkey:{other / 'l1' / 'acme'}\n"
    assert (other / "l1" / "acme" / "key").exists()


def test_a_directory_that_is_named_comes_first(desk: Desk, other: Path, tmp_path: Path) -> None:
    place = tmp_path / "third"
    arguments = ("key", "acme", "--kind", "softkey", "--uri", "--dir", str(place))
    _, out, _ = desk.run(*arguments, "--context", str(other / "context.toml"))
    assert out == f"softkey:{place / 'l1' / 'acme'}\n"
    _, out, _ = desk.run("key", "acme", "--kind", "softkey", "--uri")
    assert out == f"softkey:{tmp_path / 'state' / 'kcm' / 'dev' / 'l1' / 'acme'}\n"


@pytest.mark.parametrize("command", [("key", "acme", "--kind", "softkey"), ("status",), ("down",)])
def test_a_context_of_no_development_system_is_refused_with_what_to_do(
    desk: Desk, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "real").mkdir()
    context = FakeSystem(tmp_path / "real").context_file
    code, _, err = desk.run(*command, "--context", str(context), "-o", "json")
    said = json.loads(err)
    assert (code, said["error"]) == (Exit.USAGE, "context")
    assert "is not the context of a development system" in said["detail"]
    assert "--dir" in said["hint"]
    code, _, err = desk.run(*command, "--context", str(tmp_path / "none"), "-o", "json")
    assert (code, json.loads(err)["error"]) == (Exit.USAGE, "context")


def test_the_status_is_that_of_the_context_too(desk: Desk, other: Path) -> None:
    (other / "state.json").write_text("{}")
    code, _, err = desk.run("status", "--context", str(other / "context.toml"), "-o", "json")
    assert code == Exit.FAULT
    assert str(other / "state.json") in json.loads(err)["detail"]


def test_the_uri_alone_is_json_where_that_is_asked_for(desk: Desk, other: Path) -> None:
    arguments = ("key", "acme", "--kind", "softkey", "--uri", "--dir", str(other))
    uri = f"softkey:{other / 'l1' / 'acme'}"
    assert desk.run(*arguments)[1] == f"{uri}\n"
    said = {"name": "acme", "uri": uri, "environment": {}}
    assert json.loads(desk.run(*arguments, "-o", "json")[1]) == said


def test_what_a_person_is_shown_ends_with_the_command_that_tries_the_key(
    desk: Desk, other: Path
) -> None:
    code, out, _ = desk.run("key", "acme", "--kind", "softkey", "--dir", str(other), "-o", "table")
    assert code == Exit.OK
    assert out.splitlines()[-1] == f"kcm l1 check softkey:{other / 'l1' / 'acme'}"
    code, out, _ = desk.run("key", "acme", "--kind", "softkey", "--dir", str(other), "--env")
    assert (code, out) == (Exit.OK, "")


def test_a_directory_that_no_uri_can_name_gets_no_key(desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / "it's here"
    code, _, err = desk.run("key", "acme", "--kind", "softkey", "--dir", str(place), "-o", "json")
    assert code == Exit.FAULT
    assert f"the URI of a key cannot name {place}" in json.loads(err)["detail"]
    assert not (place / "l1").exists()


def made_at(place: Path) -> bool:
    return (place / "context.toml").exists() and (place / "keys" / "root").exists()


def test_a_system_is_made_where_the_context_will_be(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, usual = tmp_path / "wanted", tmp_path / "state" / "kcm" / "dev"
    monkeypatch.setenv("KCM_CONTEXT", str(wanted / "context.toml"))
    assert desk.run("init", "--region", "eu", "--cores", "1")[0] == Exit.OK
    assert made_at(wanted)
    assert not usual.exists()
    assert desk.run("init", "--region", "eu", "--cores", "1")[0] == Exit.OK, "it exists now"
    third = tmp_path / "third"
    assert desk.run("init", "--region", "eu", "--cores", "1", "--dir", str(third))[0] == Exit.OK
    assert made_at(third)


@pytest.mark.parametrize("command", ["up", "init"])
def test_no_system_is_made_for_the_context_of_another_one(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "real").mkdir()
    real = FakeSystem(tmp_path / "real").context_file
    for named in (real, tmp_path / "absent" / "alice.toml"):
        monkeypatch.setenv("KCM_CONTEXT", str(named))
        code, _, err = desk.run(command, "-o", "json")
        assert (code, json.loads(err)["error"]) == (Exit.USAGE, "context")
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("way", ["--dir", "--context"])
def test_a_hint_names_the_system_that_commands_alone_are_not_about(
    desk: Desk, other: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    named = {"--dir": other, "--context": other / "context.toml"}[way]
    for command, hint in (
        (("status",), f"no system runs here: `kcm dev up --dir {other}`"),
        (("restart", "core-eu-1"), f"hint: `kcm dev up --dir {other}` starts one"),
        (("up", "--region", "us"), f"`kcm dev down --wipe --dir {other}`"),
    ):
        _, _, err = desk.run(*command, way, str(named), "-o", "table")
        assert hint in err
    monkeypatch.setenv("KCM_CONTEXT", str(other / "context.toml"))
    for command, hint in (
        (("status",), "no system runs here: `kcm dev up`"),
        (("restart", "core-eu-1"), "hint: `kcm dev up` starts one"),
        (("up", "--region", "us"), "`kcm dev down --wipe`"),
    ):
        _, _, err = desk.run(*command, "-o", "table")
        assert hint in err


def test_hints_of_other_commands_name_the_context(tmp_path: Path, desk: Desk) -> None:
    place = tmp_path / "a b"
    hint = "`kcm roster show` shows it; see --nodes in `kcm dev up --help`, or `chmod 600 x`"
    assert working(place, hint) == (
        f"`kcm roster show --context '{place}/context.toml'` shows it; see --nodes in `kcm dev up "
        "--help`, or `chmod 600 x`"
    )
    assert working(system.default_directory(), hint) == hint
