"""Real processes: started, known again, waited for, ended, and never a stranger."""

import dataclasses
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kcm_devsystem import logs, processes
from kcm_devsystem.errors import DevError, NotReadyError, ProcessDiedError
from kcm_devsystem.processes import End, ListeningPort, Process, ReadyFile, is_running, spawn, stop

SECONDS = 20.0
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def start(tmp_path):
    """Start Python code under a name, and end what a test leaves."""
    started: list[Process] = []

    def run(code: str, name: str = "p", **options) -> Process:
        process = spawn(
            name,
            [sys.executable, "-I", "-S", "-c", code],
            tmp_path / f"{name}.log",
            options.pop("env", {}),
            die_with_parent=options.pop("die_with_parent", True),
            **options,
        )
        started.append(process)
        return process

    yield run
    stop(started, drain=0.0)


def wait_end(pid_handle: int) -> bool:
    poll = select.poll()
    poll.register(pid_handle, select.POLLIN)
    return bool(poll.poll(SECONDS * 1000))


def test_a_ready_file_is_waited_for_and_an_old_one_does_not_count(start, tmp_path):
    ready = tmp_path / "ready"
    ready.write_text("from a run that was killed")
    process = start(f"open({str(ready)!r}, 'w').write('now'); {SLEEP}", ready_file=ready)
    processes.wait_ready(process, ReadyFile(ready), SECONDS)
    assert ready.read_text() == "now"
    assert is_running(process)


def test_a_port_is_waited_for(start):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start(
        f"import socket; s = socket.create_server(('127.0.0.1', {port})); s.accept(); {SLEEP}"
    )
    processes.wait_ready(process, ListeningPort("127.0.0.1", port), SECONDS)


def test_one_that_dies_is_noticed_at_once_and_its_last_words_are_shown(start, tmp_path):
    process = start("import sys; print('first'); sys.exit('seal key \\x1b[31mmissing')")
    with pytest.raises(ProcessDiedError) as caught:
        processes.wait_ready(process, ReadyFile(tmp_path / "never"), SECONDS)
    text = str(caught.value)
    assert "p: ended with status 1 before it was ready" in text
    assert "seal key ?[31mmissing" in text
    assert "\x1b" not in text


def test_a_long_log_is_shown_by_its_end(start, tmp_path):
    process = start("[print('line', n) for n in range(9999)]; raise SystemExit(2)")
    with pytest.raises(ProcessDiedError) as caught:
        processes.wait_ready(process, ReadyFile(tmp_path / "never"), SECONDS)
    lines = str(caught.value).splitlines()
    assert lines[-1] == "line 9998"
    assert len(lines) == 1 + logs.TAIL_LINES_MAX


def test_the_log_of_a_failed_start_has_nothing_of_earlier_runs(start, tmp_path):
    lines = []
    for run in ("first", "second"):
        process = start(f"print('{run} run'); print('ended'); raise SystemExit(2)")
        with pytest.raises(ProcessDiedError) as caught:
            processes.wait_ready(process, ReadyFile(tmp_path / "never"), SECONDS)
        lines.append(caught.value.log)
    assert lines == [("first run", "ended"), ("second run", "ended")]


def test_one_that_is_never_ready_is_given_up(start, tmp_path):
    process = start(SLEEP)
    with pytest.raises(NotReadyError):
        processes.wait_ready(process, ReadyFile(tmp_path / "never"), 0.1)
    assert is_running(process)


def test_what_drains_is_not_killed(start, tmp_path):
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    process = start(
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(ended)!r}, 'w'), sys.exit(0)))\n"
        f"open({str(ready)!r}, 'w')\n"
        "time.sleep(600)"
    )
    processes.wait_ready(process, ReadyFile(ready), SECONDS)
    assert stop([process]) == {process: End.DRAINED}
    assert ended.exists()
    assert not is_running(process)
    assert stop([process]) == {process: End.GONE}


def test_what_does_not_drain_is_killed_with_what_it_started(start, tmp_path):
    """A Core's helper processes do not outlive it."""
    ready, child = tmp_path / "ready", tmp_path / "child"
    process = start(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pid = os.fork()\n"
        f"if pid: open({str(child)!r}, 'w').write(str(pid)); open({str(ready)!r}, 'w')\n"
        "time.sleep(600)"
    )
    processes.wait_ready(process, ReadyFile(ready), SECONDS)
    handle = os.pidfd_open(int(child.read_text()))
    try:
        assert stop([process], drain=0.1) == {process: End.KILLED}
        assert wait_end(handle)
    finally:
        os.close(handle)


def test_the_helper_of_one_that_drained_is_ended_too(start, tmp_path):
    ready, child = tmp_path / "ready", tmp_path / "child"
    process = start(
        "import os, signal, time\n"
        "pid = os.fork()\n"
        "if not pid: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"if pid: open({str(child)!r}, 'w').write(str(pid)); open({str(ready)!r}, 'w')\n"
        "time.sleep(600)"
    )
    processes.wait_ready(process, ReadyFile(ready), SECONDS)
    handle = os.pidfd_open(int(child.read_text()))
    try:
        assert stop([process]) == {process: End.DRAINED}
        assert wait_end(handle)
    finally:
        os.close(handle)


@pytest.mark.parametrize("changes", [{"start_time": 1}, {"boot_id": "another boot"}])
def test_a_stranger_that_got_the_pid_is_not_taken_for_ours_and_not_ended(start, changes):
    process = start(SLEEP)
    earlier = dataclasses.replace(process, **changes)
    assert not is_running(earlier)
    assert stop([earlier]) == {earlier: End.GONE}
    assert is_running(process)


def test_it_gets_exactly_the_environment_and_descriptors_it_is_given(start, tmp_path):
    log = tmp_path / "p.log"
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        process = start(
            "import os; print(sorted(os.environ), sorted(os.listdir('/proc/self/fd')))",
            env={"ONE": "1", "LC_CTYPE": "C.UTF-8"},
        )
        with pytest.raises(ProcessDiedError):
            processes.wait_ready(process, ReadyFile(tmp_path / "never"), SECONDS)
    finally:
        os.close(secret)
    # 3 is the listing itself.
    assert log.read_text() == "['LC_CTYPE', 'ONE'] ['0', '1', '2', '3']\n"
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("tethered", [True, False])
def test_it_ignores_no_signal_whatever_its_parents_ignore(start, tmp_path, tethered):
    """``nohup`` ignores SIGHUP, Python SIGPIPE and SIGXFSZ; a child would inherit that."""
    numbers = (signal.SIGHUP, signal.SIGXFSZ, signal.SIGPIPE, signal.SIGQUIT, signal.SIGUSR1)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    out = tmp_path / "ignored"
    code = f"grep SigIgn /proc/self/status > {out}.new; mv {out}.new {out}; exec sleep 600"
    try:
        process = spawn(
            "sh", ["/bin/sh", "-c", code], tmp_path / "log", {"PATH": os.defpath},
            die_with_parent=tethered,
        )  # fmt: skip
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    try:
        processes.wait_ready(process, ReadyFile(out), SECONDS)
        ignored = int(out.read_text().split()[1], 16)
        assert not [n for n in signal.valid_signals() if ignored >> (n - 1) & 1]
    finally:
        stop([process], drain=0.0)


def test_it_leads_a_session_of_its_own(start):
    process = start(SLEEP, die_with_parent=False)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)


def test_a_log_that_grew_large_is_put_aside(start, tmp_path):
    log = tmp_path / "p.log"
    log.write_bytes(b"x" * (logs.LOG_BYTES_MAX + 1))
    start(SLEEP)
    assert log.stat().st_size == 0
    assert (tmp_path / "p.log.old").stat().st_size == logs.LOG_BYTES_MAX + 1


def test_a_log_is_not_written_through_a_link(start, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("")
    (tmp_path / "p.log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        start("print('hello')")
    assert victim.read_text() == ""


def test_what_cannot_be_executed_is_said(tmp_path):
    with pytest.raises(DevError, match="not an executable file"):
        spawn("p", [str(tmp_path / "absent")], tmp_path / "log", {}, die_with_parent=False)


def test_only_the_main_thread_may_start_what_dies_with_it(start):
    """The kernel takes the starting thread for the parent: its end would end the process."""
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            start(SLEEP)
        except DevError as error:
            errors.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(errors) == 1


PARENT = """
import sys, time
from pathlib import Path
from kcm_devsystem.processes import spawn
tethered = sys.argv[2] == "tethered"
p = spawn("p", [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"],
          Path(sys.argv[1]) / "log", {}, die_with_parent=tethered)
print(p.pid, flush=True)
time.sleep(600)
"""


def killed_parent(tmp_path: Path, how: str) -> int:
    """Start a process through a parent, kill the parent hard, and return a handle on it."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), how], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        handle = os.pidfd_open(int(parent.stdout.readline()))
        if how == "tethered":
            wait_program(int(handle_pid(handle)))
        parent.kill()
    return handle


def handle_pid(handle: int) -> str:
    lines = Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Pid:"))


def wait_program(pid: int) -> None:
    """Wait until the wrapper has become the program."""
    poll = select.poll()
    for _ in range(int(SECONDS * 100)):
        if b"parent_death.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        poll.poll(10)
    raise AssertionError("the wrapper never became the program")


def test_even_sigkill_of_the_parent_leaves_nothing_tethered_behind(tmp_path):
    handle = killed_parent(tmp_path, "tethered")
    try:
        assert wait_end(handle)
    finally:
        os.close(handle)


def test_what_is_not_tethered_outlives_its_parent(tmp_path):
    handle = killed_parent(tmp_path, "free")
    try:
        signal.pidfd_send_signal(handle, 0)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert wait_end(handle)
    finally:
        os.close(handle)


def test_the_wrapper_runs_nothing_when_its_parent_is_gone_already(tmp_path):
    """The race: the parent died before the wrapper could ask the kernel."""
    ran = tmp_path / "ran"
    wrapper = [sys.executable, "-I", "-S", processes.parent_death.__file__, str(os.getppid())]
    done = subprocess.run(
        [*wrapper, "/usr/bin/touch", str(ran)],
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == processes.parent_death.EXIT_ORPHAN
    assert not ran.exists()


def test_the_wrapper_says_what_it_cannot_execute(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            processes.parent_death.__file__,
            str(os.getpid()),
            str(tmp_path),
        ],
        check=False,
        timeout=SECONDS,
        capture_output=True,
    )
    assert done.returncode == processes.parent_death.EXIT_NO_PROGRAM
    assert b"cannot execute" in done.stderr
