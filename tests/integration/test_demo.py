"""The demonstration: its result, and that nothing of it is left, however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SECONDS = 90


DEAF = ("sh", "-c", 'trap "" INT HUP; exec "$@"', "sh")
"""A parent that ignores Ctrl-C: a shell's background, ``nohup``, some runners."""


def start(tmp_path, *args, through=()):
    return subprocess.Popen(
        [*through, str(Path(sys.executable).parent / "kcm"), "demo", "-o", "json", *args],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(directory):
    """Processes that mention the directory on their command line, read from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
            if str(directory) in command:
                found.append(command)
    return found


def wait_for(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, "the condition did not come true in time"
        time.sleep(0.05)


@pytest.mark.timeout(200)
def test_it_does_the_main_job_on_ones_own_file(tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("id,name\n" + "".join(f"{n},Ada {n}\n" for n in range(300)))
    demo = start(tmp_path, "--input", str(table), "--root-key", "softkey")
    out, err = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 0, err
    told = json.loads(out)
    assert (told["records"], told["round_trips_ok"]) == (300, 300)
    assert told["without_credentials"] == "refused"
    assert told["without_grant"] == "forbidden"
    assert told["stolen_gateway"] == "forbidden"
    assert told["past_the_gateway"] == "refused"
    assert told["wrong_region"] == "wrong_region"
    assert told["root_keys"] == "softkey"
    assert told["kill"]["complete"]
    assert told["kill"]["instances"] == 6
    assert set(told["kill"]) == {"complete", "instances", "slowest_ms", "last_success_after_ms"}
    assert told["after_kill"]["killed_tenant"] == "tenant_killed"
    assert told["after_kill"]["other_tenant_errors"] == 0
    assert told["after_restore"]["decrypted"] == 300
    assert told["audit"]["events"] > 0
    assert told["audit"]["chain_ok"]
    assert re.search("development only", err)
    assert not processes_of(tmp_path)
    assert not list(tmp_path.glob("kcm-demo-*"))


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("number", "code", "through"),
    [
        (signal.SIGINT, 130, ()),
        (signal.SIGTERM, 143, ()),
        (signal.SIGHUP, 129, ()),
        (signal.SIGTERM, 143, DEAF),
        (signal.SIGKILL, -signal.SIGKILL, ()),
    ],
    ids=["interrupted", "ended", "hung up", "ended though Ctrl-C is ignored", "killed"],
)
def test_nothing_is_left_when_it_is_ended_in_the_middle(tmp_path, number, code, through):
    demo = start(tmp_path, "--root-key", "softkey", through=through)
    try:
        for line in demo.stderr:
            if line.startswith("traffic"):
                break
        assert len(processes_of(tmp_path)) >= 10
        demo.send_signal(number)
        assert demo.wait(SECONDS) == code
        wait_for(lambda: not processes_of(tmp_path))
        if number != signal.SIGKILL:
            assert not list(tmp_path.glob("kcm-demo-*"))
    finally:
        demo.kill()
        demo.communicate()
