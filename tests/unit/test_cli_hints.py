"""What is said to do next can be done: every command in a hint is one, with the options it has."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import kcm
import kcm_devsystem
import pytest
from kcm._internal import sealed_channel
from kcm._internal.client_context import ContextError
from kcm._internal.file_format import BrokenFileError, NotEncryptedError
from kcm.cli.error_report import explain
from kcm.cli.hints import ALSO, GENERAL, OF_COMMAND, OF_TEXT, hint_of
from kcm.errors import UntrustedReply
from kcm.exit_codes import Exit
from kcm.ops import errors
from kcm.ops.roster_changes import Refused
from kcm_core.api import registry_requests
from kcm_devsystem.errors import DevError
from kcm_killswitch.model import admission, registry_lease
from kcm_killswitch.replica import applications
from kcm_runtime.config import ConfigError
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats.stream_protection import Unfit
from kcm_schemas import session
from kcm_schemas.codes import Code, KcmError
from kcm_sessions.session_opener import unsealed
from kcm_trust import checks, rights
from kcm_trust.verify import Untrusted

from tests.unit.command_lines import QUOTED, NoCommandError, check, found, options_of, tree
from tests.unit.test_cli_paths import WITHOUT_CONTEXT, Place

SOURCES = sorted(
    path
    for package in (kcm, kcm_devsystem)
    for path in Path(str(package.__file__)).parent.rglob("*.py")
)
COMMANDS = [" ".join(path) for path in tree()]
CODES = [code for code in Code if code is not Code.OK]
ALONE = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

ASKING = [
    path for path in tree()
    if " ".join(path) not in WITHOUT_CONTEXT | {"hold verify"} and path[0] != "dev"
]  # fmt: skip
"""Commands that ask a region."""


def wrong(command: str, hint: str) -> str:
    """What of a hint cannot be done; empty when all can."""
    for line in QUOTED.findall(hint):
        try:
            check(shlex.split(line))
        except NoCommandError as error:
            return str(error)
    bare = set(ALONE.findall(re.sub(r"`[^`]*`", "", hint)))
    missing = bare - options_of(found(command.split())[0])
    return f"{command} has no {missing}" if missing else ""


def texts(path: Path) -> Iterator[str]:
    """Every text in a source file; what is filled in is one word."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hint_speaks_of_the_command_that_was_given(command: str) -> None:
    for code in CODES:
        for detail, replied in (("", False), ("", True), ("the broker is away", False)):
            hint = hint_of(command, code.value, detail, replied=replied)
            assert not wrong(command, hint), code


def test_a_core_that_is_retired_makes_no_operator_a_retired_one() -> None:
    detail = "core-eu is retired; ask another one"
    assert hint_of("hold list", "unavailable", detail) == hint_of("hold list", "unavailable", "")


def test_hints_are_for_commands_and_codes() -> None:
    codes = {code.value for code in Code}
    assert {*OF_COMMAND, *ALSO, *ALSO.values()} <= set(COMMANDS)
    assert set(GENERAL) <= codes
    assert all(set(by_code) <= codes for by_code in OF_COMMAND.values())
    assert {code.value for code in CODES} == set(GENERAL)


def test_what_a_detail_is_known_by_is_what_an_instance_says() -> None:
    modules = (
        registry_requests, admission, registry_lease, checks, rights, applications, session,
        sealed_channel,
    )  # fmt: skip
    claimed = unsealed("gateway-eu", KcmError(Code.FORBIDDEN)).detail
    said = claimed + " ".join(text for one in modules for text in texts(Path(str(one.__file__))))
    for code, part in OF_TEXT:
        assert Code(code) in CODES
        assert part in said
        detail = f"eu: {part}: bob"
        assert hint_of("tenant create", code, detail) == OF_TEXT[code, part]
        assert hint_of("tenant create", "internal", detail) == GENERAL["internal"]
        assert not wrong("tenant create", OF_TEXT[code, part])


@pytest.mark.parametrize(
    "error",
    [
        click.ClickException("x"), click.UsageError("x"), OSError("x"), OSError(5, "x"),
        OSError(2, "x", "f"), UnicodeError(), ConfigError("x"), SecretFileError("x"),
        Untrusted("x"), Refused("x", "y"), Unfit("x"), UntrustedReply("x"), NotEncryptedError("x"),
        BrokenFileError("x"), errors.OperationError("x", hint="y"), errors.ProvisionError("x"),
        errors.NotProvisionedError("x"), DevError("x"), ContextError("x", "y"), ZeroDivisionError(),
        *(KcmError(code) for code in CODES),
    ],
    ids=repr,
)  # fmt: skip
def test_every_error_has_a_next_step(error: BaseException) -> None:
    assert explain(error, "tenant create").hint


HINTED = {"Problem": 4, "ContextError": 2, "NotLetIn": 2, "Refused": 2, "Report": 4}
"""Errors that are made with a hint, and the place of it among their arguments."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_error_is_made_without_a_hint(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        place = HINTED.get(node.func.id)
        if place is None:
            continue
        assert len(node.args) >= place, ast.unparse(node)
        hint = node.args[place - 1]
        assert not (isinstance(hint, ast.Constant) and not hint.value), ast.unparse(node)


def test_only_who_reads_records_is_told_of_records() -> None:
    for command in COMMANDS:
        said = " ".join(hint_of(command, code.value) for code in CODES)
        assert ("inspect" in said) == (command == "decrypt")
        assert ("--bind" in said) == (command == "decrypt")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_command_that_a_text_names_is_one(path: Path) -> None:
    for text in texts(path):
        for line in QUOTED.findall(text):
            check(shlex.split(line))


@pytest.mark.parametrize(
    "code",
    [
        Code.FORBIDDEN,
        Code.UNKNOWN_TENANT,
        Code.TENANT_KILLED,
        Code.CONFLICT,
        Code.UNAVAILABLE,
        Code.MALFORMED,
    ],
)
@pytest.mark.parametrize("path", ASKING, ids=" ".join)
def test_what_a_region_refuses_comes_with_a_hint_for_the_command(
    place: Place, path: tuple[str, ...], code: Code
) -> None:
    class Refuses(dict[tuple[str, str], object]):
        def __missing__(self, key: tuple[str, str]) -> object:
            def refuse(*_: object) -> None:
                raise KcmError(code, "because")

            return refuse

    if path == ("hold", "export"):
        place.hold()
    for core in place.system.cores.values():
        core.handlers = Refuses()  # type: ignore[assignment]
    place.system.gateways["eu"].refuse = {b"x": code}
    command = " ".join(path)
    out = ["-o", str(place.directory / "out")] if path[0] in {"encrypt", "decrypt"} else []
    ended, err = place.run([*place.good_line(path), *out])
    said = [json.loads(line) for line in err.splitlines()]
    steps = [one for one in said if "hint" in one]
    assert steps or ended == Exit.OK
    for one in steps:
        assert one.get("error") != "fault"
        assert one["hint"]
        assert not wrong(command, one["hint"]), one
