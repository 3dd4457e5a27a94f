"""What every command keeps to: fast help, exit codes, errors without a traceback."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from kcm.cli.error_report import clean, explain, show
from kcm.cli.main import cli, run
from kcm.exit_codes import HELP, Exit
from kcm.ops.errors import NotProvisionedError
from kcm_schemas.admin.tenants import TenantPage
from kcm_schemas.codes import Code, KcmError

from tests.fakes.client import FakeSystem

HEAVY = (
    "nats",
    "cryptography",
    "pydantic",
    "rich",
    "boto3",
    "msgpack",
    "kcm_runtime",
    "kcm_trust",
    "asyncio",
)
DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    around = click.Context(group)
    for name in group.list_commands(around):
        command = group.get_command(around, name)
        inner = (*path, name)
        found += commands(command, inner) if isinstance(command, click.Group) else [inner]
    return found


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


def test_no_help_loads_what_only_work_needs() -> None:
    script = (
        "import sys, json\n"
        "from kcm.cli.main import run\n"
        "for path in json.loads(sys.argv[1]):\n"
        "    assert run([*path, '--help']) == 0, path\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    paths = json.dumps(commands(cli))
    done = subprocess.run(
        [sys.executable, "-c", script, paths], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert "click" in loaded
    assert not loaded & set(HEAVY)


def test_the_command_is_what_the_package_installs() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("kcm"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"kcm \d+\.\d+\.\d+\n", done.stdout)


def test_every_command_and_exit_code_is_in_the_docs() -> None:
    text = DOCS.read_text()
    for path in commands(cli)[1:]:
        assert f"kcm {' '.join(path)}" in text, path
    for code in Exit:
        assert f"| {code.value} |" in text, code
        assert re.search(rf"^  {code.value}\s", HELP, re.MULTILINE), code
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        assert re.search(rf"^  {128 + number}\s", HELP, re.MULTILINE), number


def test_every_command_says_in_a_line_of_the_list_what_it_does() -> None:
    for path in commands(cli):
        command: click.Command = cli
        for name in path:
            assert isinstance(command, click.Group)
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            command = inner
        if isinstance(command, click.Group):
            around = click.Context(command, terminal_width=80)
            listed = command.get_help(around).partition("Commands:")[2].partition("Exit codes")[0]
            assert "..." not in listed, listed


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (Code.FORBIDDEN, Exit.REFUSED),
        (Code.UNKNOWN_TENANT, Exit.REFUSED),
        (Code.TENANT_KILLED, Exit.REFUSED),
        (Code.TENANT_UNAVAILABLE, Exit.UNAVAILABLE),
        (Code.UNAVAILABLE, Exit.UNAVAILABLE),
        (Code.DEADLINE_EXCEEDED, Exit.UNAVAILABLE),
    ],
)
def test_a_refusal_is_an_exit_code_and_json(
    system: FakeSystem, capsys: pytest.CaptureFixture[str], code: Code, exit_code: Exit
) -> None:
    def refuse(*_: object) -> TenantPage:
        raise KcmError(code, "because \x1b[31m")

    system.everywhere("tenant", "list", refuse)
    arguments = ["tenant", "list", "--context", str(system.context_file)]
    around = system.clock.around()
    assert run([*arguments, "-o", "json"], system.open, around) == exit_code
    out, err = capsys.readouterr()
    said = json.loads(err)
    assert (out, said["error"], said["detail"]) == ("", code.value, "eu: because \ufffd[31m")
    assert run([*arguments, "-o", "table"], system.open, around) == exit_code
    err = capsys.readouterr().err
    assert err.startswith("error: eu: because ")
    assert "\x1b" not in err


def test_a_missing_context_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tenant", "list", "--context", "/nonexistent", "-o", "table"]) == Exit.USAGE
    err = capsys.readouterr().err
    assert "error: there is no context file at /nonexistent" in err
    assert "hint: " in err
    assert "kcm dev up" in err


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["tenant", "create"], ["kill"], ["kill", "a", "--link", "b"], ["tenant"]],
)
def test_wrong_usage_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err


def test_wrong_usage_is_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kill", "--nonsense", "-o", "json"]) == Exit.USAGE
    assert json.loads(capsys.readouterr().err)["error"] == "usage"


def test_a_fault_shows_no_traceback_and_nothing_of_the_work(
    system: FakeSystem, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> bytes:
        raise ZeroDivisionError("SECRET")

    system.cores["eu"].bend = broken
    arguments = ["tenant", "list", "--context", str(system.context_file), "-o", "table"]
    assert run(arguments, system.open, system.clock.around()) == Exit.FAULT
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert "SECRET" not in err
    assert "Traceback" not in err
    monkeypatch.setenv("KCM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(arguments, system.open, system.clock.around())


def test_an_answer_that_is_not_believed_is_a_failed_check(
    system: FakeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    system.everywhere("tenant", "list", lambda *_: TenantPage(tenants=[], total=0, more=False))
    system.cores["eu"].forge = lambda *_: b"\x80"
    arguments = ["tenant", "list", "--context", str(system.context_file), "-o", "json"]
    assert run(arguments, system.open, system.clock.around()) == Exit.CHECK_FAILED
    assert json.loads(capsys.readouterr().err)["error"] == "untrusted"
    liar = system.cores["us"].identity

    def by_another(reply: object, request: object) -> bytes:
        from kcm_schemas.admin.requests import AdminReply
        from kcm_schemas.codec import encode
        from kcm_schemas.signed import Kind

        assert isinstance(reply, AdminReply)
        return encode(liar.sign(Kind.ADMIN_REPLY, reply))

    system.cores["eu"].forge = by_another
    assert run(arguments, system.open, system.clock.around()) == Exit.CHECK_FAILED
    assert json.loads(capsys.readouterr().err)["error"] == "untrusted"


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\r\nc\u202ed") == "a\ufffd[2Jb\ufffd\ufffdc\ufffdd"
    assert len(clean("x" * 100_000)) < 5000


@pytest.mark.parametrize("path", commands(cli), ids=" ".join)
def test_no_help_shows_a_control_character(
    path: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    assert "\\b" not in capsys.readouterr().out


def groups(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    around = click.Context(group)
    for name in group.list_commands(around):
        command = group.get_command(around, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += groups(command, (*path, name))
    return found


@pytest.mark.parametrize("path", groups(cli), ids=lambda path: " ".join(path) or "kcm")
def test_a_group_alone_shows_its_help_as_it_is(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == Exit.OK
    wanted = capsys.readouterr().out
    assert wanted.count("\n") > 5
    assert run(path) == Exit.USAGE
    out, err = capsys.readouterr()
    assert (out, err) == ("", wanted)


def test_a_refusal_speaks_of_records_only_where_one_was_given(
    system: FakeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> TenantPage:
        raise KcmError(Code.FORBIDDEN, "no role")

    system.everywhere("tenant", "list", refuse)
    arguments = ["tenant", "list", "--context", str(system.context_file), "-o", "json"]
    assert run(arguments, system.open, system.clock.around()) == Exit.REFUSED
    hint = json.loads(capsys.readouterr().err)["hint"]
    assert "kcm roster show" in hint
    assert "inspect" not in hint
    assert "kcm inspect FILE" in explain(KcmError(Code.FORBIDDEN), "decrypt").hint


@pytest.mark.parametrize("as_json", [False, True])
def test_the_log_of_a_process_that_failed_is_shown_as_lines(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    report = explain(NotProvisionedError("core-1: ended", ["first", "sec\x1bond"]))
    show(report, as_json=as_json)
    err = capsys.readouterr().err
    if as_json:
        said = json.loads(err)
        assert (said["detail"], said["log"]) == ("core-1: ended", ["first", "sec\x1bond"])
        return
    assert err.splitlines() == [
        "error: core-1: ended (unavailable)",
        "  first",
        "  sec\ufffdond",
        f"hint: {NotProvisionedError.hint}",
    ]
