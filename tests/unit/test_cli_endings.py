"""However a command ends, it leaves no plaintext behind; what its files do not take, it says."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CHILD = textwrap.dedent("""
    import asyncio, signal, sys
    from pathlib import Path
    from kcm.cli.main import run
    from kcm_runtime.files import atomic
    from tests.fakes.client import FakeSystem

    # The suite may run in the background, where a shell lets its processes ignore signals.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)

    how, directory, *arguments = sys.argv[1:]
    Path(directory).mkdir(exist_ok=True)
    system = FakeSystem(Path(directory))
    asked = 0

    async def hang(subject, body):
        global asked
        asked += 1
        if asked > 8:
            print("ready", file=sys.stderr, flush=True)
            await asyncio.Event().wait()

    if "named" in how:
        atomic._unnamed = lambda directory, mode: None
    if "nohup" in how:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if "hang" in how:
        system.gateways["eu"].script = hang
    who = ["--tenant", "acme", "--service", "crm", "--context", str(system.context_file)]
    sys.exit(run([*arguments, *who, "--format", "json"], system.open, system.clock.around()))
""")


class Place:
    """A directory with a file, and the command in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.out = directory / "out"
        self.out.mkdir()
        self.plain = directory / "plain"
        self.plain.write_bytes(b"secret " * 1_200_000)

    def argv(self, how: str, *arguments: str) -> list[str]:
        return [sys.executable, "-c", CHILD, how, tempfile.mkdtemp(dir=self.directory), *arguments]

    def start(self, how: str) -> subprocess.Popen[bytes]:
        """An encryption that has written a part and waits for the Gateway."""
        argv = self.argv(how, "encrypt", str(self.plain), "-o", str(self.out / "file"))
        started = subprocess.Popen(argv, stderr=subprocess.PIPE, cwd=ROOT)
        assert started.stderr is not None
        assert started.stderr.readline() == b"ready\n"
        return started

    def run(
        self,
        *arguments: str,
        before: Callable[[], object] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
    ) -> tuple[int, dict[str, str]]:
        done = subprocess.run(
            self.argv("", *arguments), cwd=ROOT, check=False, preexec_fn=before, stdin=stdin,
            stdout=stdout, stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if line.startswith(b"{")]
        error = json.loads(lines[-1]) if lines else {}
        return done.returncode, error

    def names(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def end(started: subprocess.Popen[bytes], *numbers: signal.Signals) -> tuple[int, bytes]:
    for number in numbers:
        started.send_signal(number)
    _, err = started.communicate(timeout=60)
    return started.returncode, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_leaves_no_file(place: Place, number: signal.Signals) -> None:
    started = place.start("hang named")
    assert len(place.names()) == 1
    code, _ = end(started, number)
    assert code == 128 + number
    assert place.names() == []


def test_an_interruption_leaves_no_file(place: Place) -> None:
    started = place.start("hang named")
    code, _ = end(started, signal.SIGINT)
    assert code == 130
    assert place.names() == []


def test_a_file_without_a_name_needs_no_cleaning(place: Place) -> None:
    started = place.start("hang")
    assert place.names() == []
    code, _ = end(started, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert place.names() == []


def test_the_next_command_removes_what_a_killed_one_left(place: Place) -> None:
    end(place.start("hang named"), signal.SIGKILL)
    assert len(place.names()) == 1
    code, _ = place.run("encrypt", str(place.plain), "-o", str(place.out / "other"))
    assert (code, place.names()) == (0, ["other"])


def test_a_signal_that_is_ignored_stays_ignored(place: Place) -> None:
    code, _ = end(place.start("hang nohup"), signal.SIGHUP, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM


def no_more_bytes() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_a_file_that_does_not_fit_is_named(place: Place) -> None:
    target = str(place.out / "file")
    code, error = place.run("encrypt", str(place.plain), "-o", target, before=no_more_bytes)
    assert (code, error["error"]) == (1, "io")
    assert error["detail"] == f"cannot write {target}: File too large"
    assert place.names() == []


def test_a_full_device_is_named(place: Place) -> None:
    code, error = place.run("encrypt", str(place.plain), "-o", "/dev/full")
    assert (code, error["error"]) == (1, "io")
    assert error["detail"] == "cannot write /dev/full: No space left on device"
    assert "free some space" in error["hint"]
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, error = place.run("encrypt", str(place.plain), stdout=full)
    finally:
        os.close(full)
    assert (code, error["error"]) == (1, "io")
    assert error["detail"] == "cannot write stdout: No space left on device"


def test_a_reader_that_ends_early_is_said(place: Place) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, error = place.run("encrypt", str(place.plain), stdout=writing)
    finally:
        os.close(writing)
    assert (code, error["error"]) == (1, "io")
    assert error["detail"] == "cannot write stdout: Broken pipe"


def closing(number: int) -> Callable[[], None]:
    def close() -> None:
        with contextlib.suppress(OSError):
            os.close(number)

    return close


def test_closed_ends_are_wrong_usage(place: Place) -> None:
    code, error = place.run("encrypt", "-", "-o", str(place.out / "file"), before=closing(0))
    assert (code, error["detail"]) == (2, "cannot read stdin: it is closed")
    code, error = place.run("encrypt", str(place.plain), before=closing(1))
    assert (code, error["detail"]) == (2, "cannot write stdout: it is closed")
    assert place.names() == []


def test_a_directory_is_no_input(place: Place) -> None:
    code, error = place.run("encrypt", str(place.out), "-o", str(place.out / "file"))
    assert (code, error["detail"]) == (2, f"cannot read {place.out}: Is a directory")
    assert place.names() == []


@pytest.mark.parametrize("name", ["x" * 300, "loop/file", "plain/x", "none/x", "."])
def test_a_place_that_cannot_be_is_wrong_usage(place: Place, name: str) -> None:
    (place.directory / "loop").symlink_to("loop")
    target = f"{place.directory}/{name}"
    code, error = place.run("encrypt", str(place.plain), "-o", target)
    assert (code, error["error"]) == (2, "usage")
    assert error["detail"].startswith(f"cannot write {target}: ")


LOADING = textwrap.dedent("""
    import os, signal, sys

    class Interrupting:
        def find_spec(self, name, path=None, target=None):
            if name == wanted:
                os.kill(os.getpid(), signal.SIGINT)

    wanted = sys.argv[1]
    if sys.argv[2:3] == ["ignored"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.meta_path.insert(0, Interrupting())
    from kcm.entry import main
    sys.argv[1:] = sys.argv[3:] or ["--version"]
    main()
""")


@pytest.mark.parametrize(
    "module", ["kcm.cli.main", "click", "kcm.cli.kill", "kcm_runtime.hardening"]
)
def test_an_interruption_while_it_loads_says_that_nothing_was_done(module: str) -> None:
    argv = [sys.executable, "-c", LOADING]
    done = subprocess.run([*argv, module], cwd=ROOT, check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, b"interrupted: nothing was done\n")
    held = subprocess.run([*argv, module, "ignored"], cwd=ROOT, check=False, timeout=60)
    assert held.returncode == 0, "whoever started it has that ignored"


def test_a_kill_that_is_interrupted_before_it_began_has_placed_no_hold(place: Place) -> None:
    argv = [sys.executable, "-c", LOADING, "asyncio", "", "kill", "acme", "--reason", "none"]
    argv += ["--context", str(place.directory / "none"), "--format", "table"]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, timeout=60)
    said = (
        b"error: interrupted: no hold was placed (interrupted)\nhint: give the same command again"
    )
    assert (done.returncode, done.stderr.strip()) == (130, said)
