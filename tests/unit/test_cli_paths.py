"""A path that cannot be used is told with the name that was given, by every command that takes one.

The commands, and which of their parameters are paths, come from the command tree: a new command is
looked at without anybody thinking of it.
"""

import contextlib
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from kcm._internal.app_entries import first_entry, read_grant
from kcm._internal.evidence_file import FORMAT, VERSION, Evidence, written
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm.ops.roster_changes import write
from kcm_broker.realm import Realm
from kcm_deployment.plan_file import EXAMPLE
from kcm_runtime.clock import SystemClock
from kcm_schemas.admin.holds import HoldExport
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message, encode
from kcm_schemas.roster import Operator, OperatorRole
from kcm_schemas.signed import Kind

from tests.fakes.client import NOW_MS, FakeSystem
from tests.unit import operator_rig, roster_rig
from tests.unit.command_lines import found, tree

WITHOUT_CONTEXT = {
    "dev up", "dev init", "region provision", "demo", "l1 policy", "l1 check", "inspect",
    "audit verify", "roster sign", "init", "broker push", "broker revoke", "broker maintenance",
}  # fmt: skip
"""They ask nobody who is in a context, so that ``--context`` changes nothing."""

WRITTEN = {"output", "prepare", "to", "key_file", "target"}
"""Parameters that name what a command writes; all others name what it reads."""


FILES = {"roster put": "signed", "roster sign": "draft", "hold verify": "evidence"}
"""What is good for a parameter called FILE; else any file is."""

WANTED = {
    "kill": ("tenant",), "lift": ("hold_ids",), "l1 link": ("name", "uri"),
    "roster retire": ("key",), "roster sign": ("key",), "app rotate": ("key_file",),
    "app change": ("grants",), "init": ("plan",), "broker revoke": ("instance",),
}  # fmt: skip
"""Parameters that may be left out in another case than this one."""


@dataclass(frozen=True)
class Taken:
    """A path that a command takes."""

    command: tuple[str, ...]
    param: click.Parameter

    def __str__(self) -> str:
        return f"{' '.join(self.command)} {self.param.name}"

    @property
    def is_directory(self) -> bool:
        assert isinstance(self.param.type, click.Path)
        return not self.param.type.file_okay


TAKEN = [
    Taken(path, param)
    for path in tree()
    for param in found(path)[0].params
    if isinstance(param.type, click.Path)
    and not (param.name == "context_file" and " ".join(path) in WITHOUT_CONTEXT)
]


class Place:
    """A system in memory, with files for every command that takes some."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        system = directory / "system"
        system.mkdir()
        self.directory = directory
        self.system = FakeSystem(system)
        bob = Operator(operator="bob", roles=list(OperatorRole), public_key=b"b" * 32)
        operators = [*self.system.roster.operators, bob]
        self.system.roster = self.system.roster.model_copy(update={"operators": operators})
        root = self.system.root
        (system / "roster").write_bytes(encode(root.sign(Kind.ROSTER, self.system.roster)))
        self.kills = operator_rig.Cores(self.system, looks=1)
        self.cores = roster_rig.Cores(self.system)
        self.system.everywhere("hold", "export", self._export)
        self._capsys = capsys
        (directory / "journal").mkdir()
        (directory / "plain").write_bytes(b"x")
        draft = self.system.roster.model_copy(update={"version": 2})
        (directory / "draft").write_bytes(encode(draft))
        (directory / "signed").write_bytes(encode(root.sign(Kind.ROSTER, draft)))
        evidence = Evidence(
            format=FORMAT, version=VERSION, system="acme", root=root.public.hex(),
            hold_id="00" * 16, hold=b"", lift=b"", result=b"", roster=b"", lists={},
        )  # fmt: skip
        (directory / "evidence").write_bytes(written(evidence))
        (directory / "plan").write_text(EXAMPLE)
        Realm(directory / "deployment" / "authority" / "realms" / "eu", "eu", SystemClock())
        self.good = {
            "account": "region", "plan": str(directory / "plan"), "target": str(directory / "new"),
            "context_file": str(self.system.context_file),
            "key": str(system / "root.key"),
            "known": str(system / "roster"),
            "directory": str(directory / "journal"),
            "uri": "softkey:/nowhere",
            "hold_id": "",
            "region": "eu",
            "reason": "x",
            "hold_ids": "5d41",
            "grants": "acme/crm",
            "key_file": str(system / "new.key"),
        }  # fmt: skip

    def _export(self, request: AdminRequest, operator: str) -> Message:
        ((hold_id, _),) = self.kills.held.items()
        return HoldExport(
            hold_id=hold_id, hold=b"x", lift=b"", result=b"", complete=False, unstored=""
        )

    def show(self, request: AdminRequest, operator: str) -> Message:
        public, grants = self.system.alice.public, [read_grant("acme/crm")]
        entry = first_entry("acme", public, grants, ["eu", "us"], now_ms=NOW_MS, days=1)
        return operator_rig.app_view(self.system, request.region, entry)

    def hold(self) -> None:
        arguments = ["kill", "acme", "--context", self.good["context_file"], "-o", "json"]
        assert run(arguments, self.system.open, self.system.clock.around()) == Exit.OK
        ((hold_id, _),) = self.kills.held.items()
        self.good["hold_id"] = hold_id.hex()

    def arguments(self, taken: Taken, value: str) -> list[str]:
        """A command line that is good but for one path."""
        return self.good_line(taken.command, taken.param, value)

    def good_line(
        self, path: tuple[str, ...], other: click.Parameter | None = None, value: str = ""
    ) -> list[str]:
        """A command line with what the command needs; ``other`` has another value."""
        words = list(path)
        for param in found(path)[0].params:
            given = value if param is other else self._good(" ".join(path), param)
            if given is None:
                continue
            words += [param.opts[0], given] if isinstance(param, click.Option) else [given]
        words += ["--yes"] if path in {("registry", "adopt"), ("roster", "retire")} else []
        return [*words, "--format", "json"]

    def _good(self, command: str, param: click.Parameter) -> str | None:
        name = str(param.name)
        if command.startswith("broker ") and name == "directory":
            return str(self.directory / "deployment")
        if name == "file":
            return str(self.directory / FILES.get(command, "plain"))
        if (command, name) == ("roster retire", "name"):
            return "bob"
        if name == "context_file" or param.required or name in WANTED.get(command, ()):
            return self.good.get(name, "acme")
        return None

    def run(self, arguments: list[str]) -> tuple[int, str]:
        self._capsys.readouterr()
        code = run(arguments, self.system.open, self.system.clock.around())
        return code, self._capsys.readouterr().err

    def files(self) -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() if path.is_file() else b""
            for path in self.directory.rglob("*")
            if ".seen" not in str(path)
        }


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


def bad(place: Place, kind: str) -> Path:
    path = place.directory / "given"
    match kind:
        case "no file":
            return path
        case "no parent":
            return path / "file"
        case "under a file":
            path.write_bytes(b"x")
            return path / "file"
        case "a directory":
            path.mkdir()
            return path
        case "a file":
            path.write_bytes(b"x")
            return path
        case _:
            path.write_bytes(b"\xff\xfe\x00" * 100)
            return path


KINDS = ("no file", "no parent", "under a file", "a directory", "a file", "no text")


def is_bad(taken: Taken, kind: str) -> bool:
    """Whether such a path cannot be used for that."""
    if taken.is_directory:
        return kind in {"under a file", "a file"}
    if taken.param.name in WRITTEN:
        return kind in {"no parent", "under a file", "a directory"}
    if "crypt" in taken.command[0] and taken.param.name == "file":
        return kind in {"no file", "no parent", "under a file", "a directory"}
    return kind != "a file"


@pytest.mark.parametrize(
    ("taken", "kind"),
    [(taken, kind) for taken in TAKEN for kind in KINDS if is_bad(taken, kind)],
    ids=str,
)
def test_a_path_that_cannot_be_used_is_named(place: Place, taken: Taken, kind: str) -> None:
    if "export" in taken.command:
        place.hold()
    if taken.command == ("app", "credentials"):
        place.system.let_sign("eu", "us")
        place.system.everywhere("app", "show", place.show)
    path = bad(place, kind)
    before, puts = place.files(), dict(place.cores.put)
    code, err = place.run(place.arguments(taken, str(path)))
    error = json.loads(err.splitlines()[-1])
    assert code in {Exit.USAGE, Exit.CHECK_FAILED, Exit.UNAVAILABLE}, err
    assert code != Exit.CHECK_FAILED or kind == "no text"
    assert error["error"] not in {"fault", "io"}
    assert str(path) in error["detail"], err
    assert place.files() == before
    assert place.cores.put == puts


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No file may have a byte, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


LIMIT = [taken for taken in TAKEN if taken.param.name in WRITTEN and taken.command[0] == "roster"]


@pytest.mark.parametrize("taken", LIMIT, ids=str)
def test_a_file_that_finds_no_room_leaves_nothing(place: Place, taken: Taken) -> None:
    path = place.directory / "fresh"
    before, arguments = place.files(), place.arguments(taken, str(path))
    with no_room():
        code, err = place.run(arguments)
    error = json.loads(err.splitlines()[-1])
    assert (code, error["error"]) == (Exit.FAULT, "io")
    assert error["detail"].startswith(f"cannot use {path}: File too large")
    assert place.files() == before


@pytest.mark.parametrize("command", ["init", "up"])
def test_a_system_that_finds_no_room_is_named_and_can_be_made_later(
    place: Place, command: str
) -> None:
    given = place.directory / "dev"
    with no_room():
        code, err = place.run(["dev", command, "--dir", str(given), "-o", "json"])
    error = json.loads(err.splitlines()[-1])
    assert (code, error["error"]) == (Exit.FAULT, "io")
    assert error["detail"].startswith(f"cannot use {given}/")
    assert not [path for path in given.rglob("*") if path.is_file() and not path.stat().st_size]
    assert place.run(["dev", "init", "--dir", str(given), "-o", "json"])[0] == Exit.OK


def test_a_root_key_that_finds_no_room_is_not_there(place: Place) -> None:
    given = place.directory / "dev"
    assert place.run(["dev", "init", "--dir", str(given), "-o", "json"])[0] == Exit.OK
    words = ["dev", "key", "acme", "--kind", "softkey", "--dir", str(given), "-o", "json"]
    with no_room():
        code, err = place.run(words)
    assert (code, json.loads(err)["error"]) == (Exit.FAULT, "io")
    assert f"cannot use {given / 'l1' / 'acme'}/" in json.loads(err)["detail"]
    assert not (given / "l1" / "acme" / "key").exists()
    assert place.run(words)[0] == Exit.OK
    assert (given / "l1" / "acme" / "key").stat().st_size == 32


def test_a_directory_that_may_not_be_written_is_named() -> None:
    """As another user where this one is the superuser, who may write anywhere."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)  # every user reaches the directory, unlike those of `tmp_path`
        locked = Path(place) / "locked"
        locked.mkdir(mode=0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError) as caught:
                write(locked / "roster", b"x", {})
        finally:
            os.seteuid(user)
        assert caught.value.filename == str(locked / "roster")
        assert list(locked.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("kill", "acme", "--reason", "\udcff"),
        ("l1", "link", "acme", "softkey:\udcff"),
        ("lift", "\udcff", "--reason", "x"),
        ("encrypt", "plain", "--tenant", "acme", "--service", "s", "--fields", "\udcff"),
        ("registry", "adopt", "--region", "\udcff", "--yes"),
    ],
)
def test_an_argument_that_is_no_text_is_named(place: Place, arguments: tuple[str, ...]) -> None:
    code, err = place.run([*arguments, "--format", "json"])
    error = json.loads(err.splitlines()[-1])
    assert (code, error["error"]) == (Exit.USAGE, "malformed")
    assert "is not UTF-8 text" in error["detail"]
    assert not place.kills.held


def test_a_roster_that_finds_no_room_is_said_to_be_in_the_regions(place: Place) -> None:
    key, before = place.good["key"], (place.directory / "system" / "roster").read_bytes()
    retire = ["roster", "retire", "bob", "--yes", "--key", key]
    arguments = [*retire, "--context", place.good["context_file"]]
    with no_room():
        code, err = place.run([*arguments, "-o", "json"])
    error = json.loads(err.splitlines()[-1])
    assert (code, error["error"], set(place.cores.put)) == (Exit.FAULT, "io", {"eu", "us"})
    assert (
        "File too large; a region may have the new roster; this context does not have it yet"
        in error["detail"]
    )
    assert error["hint"] == "`kcm roster show` reads it from the regions"
    assert (place.directory / "system" / "roster").read_bytes() == before
