"""How a process is, in a word: it serves, it does not, or how it ended."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kcm_broker.certificate_files import CertificateFiles
from kcm_deployment.broker_files import BACKBONE, LINKS
from kcm_devsystem import exit_causes, processes
from kcm_devsystem.exit_causes import Witness
from kcm_devsystem.health import SERVING, health
from kcm_devsystem.processes import Process
from kcm_devsystem.state import Entry, Kind
from kcm_runtime.clock import SystemClock

SECONDS = 20.0
WAITING = "import os, sys, time\nwhile not os.path.exists('{go}'): time.sleep(0.01)\n"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Process]:
    process = processes.spawn(
        "core-eu-1", ["/bin/sleep", "600"], tmp_path / "log", {}, die_with_parent=True
    )
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
    processes.stop([process])


def service(process: Process) -> Entry:
    return Entry(process, Kind.INSTANCE, "core", "eu", "core-eu-1")


def test_an_instance_is_ready_once_it_has_said_so(tmp_path: Path, started: Process) -> None:
    entry = service(started)
    assert health(tmp_path, entry) == "starting"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "core-eu-1.ready").touch()
    assert health(tmp_path, entry) == "ready"
    os.kill(started.pid, signal.SIGSTOP)
    eventually(lambda: health(tmp_path, entry) == "paused")
    os.kill(started.pid, signal.SIGCONT)
    eventually(lambda: health(tmp_path, entry) == "ready")
    processes.stop([started])
    assert health(tmp_path, entry) == "ended"
    assert {"ready", "runs", "answers"} == SERVING


@pytest.mark.parametrize("region", ["eu", ""])
@pytest.mark.parametrize(
    ("greeting", "word"), [(b"INFO {}\r\n", "answers"), (b"HTTP/1.1 ", "silent"), (b"", "silent")]
)
def test_a_broker_answers_when_it_greets(
    tmp_path: Path, started: Process, greeting: bytes, word: str, region: str
) -> None:
    """The backbone, which has no region, wants the certificate of a link."""
    links = CertificateFiles(tmp_path / "certificates" / LINKS, "ca", SystemClock())
    links.server("eu", ["127.0.0.1"])
    files = CertificateFiles(tmp_path / "certificates" / (region or BACKBONE), "ca", SystemClock())
    files.server(started.name, ["127.0.0.1"])
    own = files.certificate(started.name)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(links.ca))
    tls.load_cert_chain(own, own.with_suffix(".key"))
    tls.verify_mode = ssl.CERT_NONE if region else ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with tls.wrap_socket(server.accept()[0], server_side=True) as connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"tls://127.0.0.1:{server.getsockname()[1]}"
        entry = Entry(started, Kind.BROKER, "region", region, address=address)
        assert health(tmp_path, entry) == word
        thread.join()
    assert health(tmp_path, entry) == "silent"
    assert health(tmp_path, Entry(started, Kind.BROKER, "region", region)) == "silent"


def test_a_broker_with_the_certificate_of_another_authority_is_silent(
    tmp_path: Path, started: Process
) -> None:
    for place in ("certificates/eu", "other"):
        files = CertificateFiles(tmp_path / place, "ca", SystemClock())
        files.server(started.name, ["127.0.0.1"])
    own = files.certificate(started.name)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(own, own.with_suffix(".key"))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with (
                contextlib.suppress(OSError),
                tls.wrap_socket(server.accept()[0], server_side=True) as connection,
            ):
                connection.sendall(b"INFO {}\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"tls://127.0.0.1:{server.getsockname()[1]}"
        entry = Entry(started, Kind.BROKER, "region", "eu", address=address)
        assert health(tmp_path, entry) == "silent"
        thread.join()


@pytest.mark.parametrize(
    ("code", "how"),
    [("sys.exit(7)", " with status 7"), ("os.abort()", " with signal 6"), ("", " with status 0")],
)
def test_the_end_of_a_child_is_noted(tmp_path: Path, code: str, how: str) -> None:
    process = processes.spawn(
        "p",
        [sys.executable, "-c", WAITING.format(go=tmp_path / "go") + code],
        tmp_path / "log", {}, die_with_parent=True,
    )  # fmt: skip
    _see_the_end(tmp_path, process, how, tmp_path / "go")


def test_the_end_of_nobodys_child_is_noted(tmp_path: Path) -> None:
    """Where the kernel says it; else it is not known, and nothing wrong is said."""
    code = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 7"
    script = f"({code}) > /dev/null 2>&1 & echo $!"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    process = processes.identify("p", int(done.stdout), tmp_path / "log")
    assert process is not None
    release = tuple(int(number) for number in os.uname().release.split(".")[:2])
    _see_the_end(tmp_path, process, " with status 7" if release >= (6, 15) else "", tmp_path / "go")


def _see_the_end(root: Path, process: Process, how: str, go: Path) -> None:
    witness = Witness(root)
    try:
        witness.look([process])
        assert exit_causes.noted(root, process) == ""
        go.touch()

        def seen() -> bool:
            ended = not processes.is_running(process) if how == "" else True
            witness.look([process])
            return ended and exit_causes.noted(root, process) == how

        eventually(seen)
    finally:
        witness.close()
    later = Process(process.name, process.pid, process.start_time + 1, "boot", root / "log")
    assert exit_causes.noted(root, later) == ""


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < until, "the condition did not come true in time"
        time.sleep(0.01)
