"""What stays in the Core's memory of a blob that passed through the pipe: nothing.

A process of its own unwraps and wipes; this one, its parent, reads its memory.
"""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kcm_core.providers.softkey import provider as softkey
from kcm_core.unsealer.client import Unsealer

UNWRAPS = 32

PROGRAM = """
import asyncio, sys
from kcm_core.unsealer.client import Unsealer

async def main():
    uri, blob = sys.argv[1], bytes.fromhex(sys.argv[2])
    unsealer = Unsealer({"KCM_DEVELOPMENT": "1"})
    outs = [bytearray(72) for _ in range(int(sys.argv[3]))]
    await asyncio.gather(*(
        unsealer.unwrap_into(uri, blob, b"c", "aes-gcm", memoryview(out), deadline_s=30)
        for out in outs
    ))
    print("open", flush=True); sys.stdin.readline()
    for out in outs:
        out[:] = bytes(72)
    print("wiped", flush=True); sys.stdin.readline()
    await unsealer.close()

asyncio.run(main())
"""


@pytest.fixture
def secret(tmp_path):
    """A softkey's URI, a plaintext and what it was wrapped to."""
    softkey.create(tmp_path / "key")
    plaintext, uri = os.urandom(72), f"softkey:{tmp_path / 'key'}"

    async def wrap():
        unsealer = Unsealer({"KCM_DEVELOPMENT": "1"})
        try:
            return (await unsealer.wrap(uri, plaintext, b"c", deadline_s=30)).blob
        finally:
            await unsealer.close()

    return uri, plaintext, asyncio.run(wrap())


def found(pid, plaintext):
    """How often any third of the plaintext stands in a process's memory."""
    count = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if "w" not in rights:
                continue
            with contextlib.suppress(OSError):  # a guard page
                memory.seek(int(start, 16))
                data = memory.read(int(end, 16) - int(start, 16))
                count += sum(data.count(plaintext[at : at + 24]) for at in (0, 24, 48))
    return count


def test_an_unwrap_leaves_nothing_behind(secret):
    uri, plaintext, blob = secret
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, uri, blob.hex(), str(UNWRAPS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "open\n"
        assert found(process.pid, plaintext) == 3 * UNWRAPS  # each in its place, no copy
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "wiped\n"
        assert found(process.pid, plaintext) == 0
        process.stdin.write("\n")
    assert process.returncode == 0
