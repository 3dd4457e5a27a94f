"""What the confinement of a server does to its own work."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from kcm_core.unsealer.client import Unsealer
from kcm_core.unsealer.confinement import landlock
from kcm_core.unsealer.confinement.confine import SWITCH
from kcm_core.unsealer.kinds import Kind
from kcm_core.unsealer.servers import Servers

from tests.integration.unsealing import failure, gone, until

KEY = "awskms:arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"

STATUS = """
import json, sys
from kcm_core.unsealer.confinement.confine import Confinement
from kcm_core.unsealer.kinds import Kind
status = open("/proc/self/status")
confinement = Confinement(Kind("pkcs11"), json.loads(sys.argv[1]))
told = dict(line.split(":", 1) for line in status.read().splitlines())
print(json.dumps({"lacks": confinement.lacks, **{k: v.strip() for k, v in told.items()}}))
"""


def status(environment):
    """The status of a process after it confined itself, as the kernel states it."""
    command = [sys.executable, "-c", STATUS, json.dumps(environment)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_confined_process_has_no_privileges():
    told = status({})
    assert told["lacks"] == list(landlock.lacks(landlock.abi()))
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    assert {int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    if os.geteuid() == 0:
        assert int(told["CapBnd"], 16) == 0


OLDER = """
import sys
from kcm_core.unsealer.confinement import landlock
from kcm_core.unsealer.confinement.confine import Confinement
from kcm_core.unsealer.kinds import Kind
version, outside = int(sys.argv[1]), sys.argv[2]
landlock.abi = lambda: version
confinement = Confinement(Kind("awskms"), {"HOME": "/nonexistent"})
try:
    read = open(outside).read()
except PermissionError:
    read = "denied"
print(read, *confinement.lacks, sep="; ")
"""


@pytest.mark.parametrize("version", range(landlock.abi() + 1))
def test_an_older_kernel_restricts_what_it_can(version, tmp_path):
    (tmp_path / "outside").write_text("read")
    command = [sys.executable, "-c", OLDER, str(version), str(tmp_path / "outside")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    read = "denied" if version else "read"
    assert done.stdout.strip() == "; ".join((read, *landlock.lacks(version)))


def test_a_switched_off_confinement_is_named():
    told = status({SWITCH: "off"})
    assert told["lacks"] == ["confinement is switched off"]
    assert (told["NoNewPrivs"], told["Seccomp"]) == (
        status_of_this("NoNewPrivs"),
        status_of_this("Seccomp"),
    )


def status_of_this(name):
    with open("/proc/self/status") as file:  # noqa: PTH123 - the kernel's
        return next(line.split()[1] for line in file if line.startswith(f"{name}:"))


@pytest.mark.parametrize("switch", ["on", "off"])
async def test_the_core_states_what_is_missing(switch):
    unsealer = Unsealer({SWITCH: switch})
    await unsealer.start()
    try:
        state = str(unsealer.isolation)
    finally:
        await unsealer.close()
    lacks = landlock.lacks(landlock.abi()) if switch == "on" else ("confinement is switched off",)
    why = "; ".join(("the unsealer runs as the Core's user", *lacks))
    assert state == f"degraded ({why})"
    assert not unsealer.isolation.full


async def test_a_file_that_was_replaced_is_seen_again(tmp_path):
    """A rule belongs to a file, and credentials are renewed by renaming another file."""
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    nowhere = {"AWS_ENDPOINT_URL_KMS": "https://127.0.0.1:1", "AWS_EC2_METADATA_DISABLED": "true"}
    unsealer = Unsealer({"AWS_SHARED_CREDENTIALS_FILE": str(credentials), **nowhere})
    await unsealer.start()
    try:
        first = await failure(unsealer.inspect(KEY, deadline_s=30.0))
        assert "credentials" not in first.detail
        server = unsealer.server_pid
        (tmp_path / "new").write_text(credentials.read_text())
        (tmp_path / "new").rename(credentials)
        await until(lambda: gone(server))
        second = await failure(unsealer.inspect(KEY, deadline_s=30.0))
        assert second.detail == first.detail
        assert unsealer.server_pid not in {server, None}
    finally:
        await unsealer.close()


class Quiet:
    """A server that only knows whether it was closed."""

    pid = None

    def __init__(self, kind):
        self.kind = kind
        self.closed = False

    async def close(self):
        await asyncio.sleep(0)
        self.closed = True


async def test_authorities_of_links_do_not_start_servers_without_end():
    made = []

    def make(kind):
        made.append(Quiet(kind))
        return made[-1]

    servers = Servers(make, Kind("pkcs11"))
    kinds = [Kind("awskms", f"/ca-{number}") for number in range(20)]
    for kind in kinds:
        await servers.of(Kind("pkcs11"))
        await servers.of(kind)
    assert [one.kind for one in made if not one.closed] == [Kind("pkcs11"), *kinds[-7:]]
    assert (await servers.of(Kind("pkcs11"))) is made[0]
