"""A real Core uses an unsealer under a user of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
from kcm import Admin
from kcm._internal import statements
from kcm_core.config import CoreConfig
from kcm_core.providers.softkey import provider as softkey
from kcm_devsystem import system
from kcm_devsystem.configs import config_file, ready_file
from kcm_runtime.config import ConfigError, load
from kcm_schemas.codes import KcmError

from tests.integration.living import EU, Living, decrypt, encrypt, eventually
from tests.integration.other_user import UID, open_directory, other_user

CORE = f"core-{EU}-1"
ROOT = os.geteuid() == 0
"""Only root starts a process of another user."""


@contextlib.asynccontextmanager
async def running(directory, socket):
    """A development system whose one Core was started again, with an unsealer at a socket."""
    options = system.Options(
        directory / "system",
        regions=(EU,),
        cores=1,
        unsealer={},
        die_with_parent=False,
        visitor=True,
    )
    state = await asyncio.to_thread(system.up, options, lambda _: None)
    try:
        living = Living(options, state)
        await asyncio.to_thread(living.allow)
        living.sigkill(CORE)
        member = next(one for one in options.everybody if one.name == CORE)
        use_socket(config_file(options.directory, member), socket)
        async with replacement(options.directory, member):
            yield living
    finally:
        await asyncio.to_thread(system.down, options.directory)


def use_socket(config, socket):
    """Rewrite a Core's configuration."""
    text, _, _ = config.read_text().partition("[unsealer_environment]")
    config.write_text(f'{text}\n[unsealer]\nsocket = "{socket}"\nuid = {UID}\n')


@contextlib.asynccontextmanager
async def replacement(directory, member):
    """The Core that takes the place of the killed one."""
    ready = ready_file(directory, member)
    ready.unlink()
    command = [sys.executable, "-m", "kcm_core", "--config", str(config_file(directory, member))]
    core = await asyncio.to_thread(
        subprocess.Popen, command, env={"PATH": os.defpath, "LANG": "C.UTF-8"}
    )

    async def serves():
        assert core.poll() is None
        return ready.exists()

    try:
        await eventually(serves, within_s=90)
        yield
    finally:
        core.send_signal(signal.SIGTERM)
        core.wait(30)


async def create(admin, uri):
    link = statements.link(admin.identity, "root", uri=uri, model="byok")
    await admin.put_link(EU, link)
    tenant = statements.tenant(
        admin.identity, "acme", link="root", regions=[EU], region_quorum="all", revision=1
    )
    await admin.put(EU, "tenant", tenant)
    await admin.put(EU, "service", statements.service(admin.identity, "acme", "crm"))


async def isolation(living):
    async with living.operator(EU) as bus:
        told = json.loads(await bus.request("$SRV.INFO.kcm-core", b"", 10))
    return told["metadata"]["unsealer_isolation"]


if ROOT:

    @pytest.mark.slow
    @pytest.mark.timeout(240)
    async def test_a_core_uses_an_unsealer_of_another_user(tmp_path):
        with open_directory() as directory:
            softkey.create(directory / "key")
            for one in (directory / "key", *(directory / "key").iterdir()):
                os.chown(one, UID, UID)
            with other_user(directory, {"KCM_DEVELOPMENT": "1"}) as unsealer:
                async with running(tmp_path, unsealer.socket) as living:
                    async with Admin.open(living.context) as admin:
                        await create(admin, f"softkey:{directory / 'key'}")
                    async with living.app() as app:
                        records = (await encrypt(app, "acme", [b"x"])).records
                        assert await isolation(living) == "full"
                        unsealer.stop()
                        unsealer.start()
                        await opens(app, records)


async def opens(app, records):
    async def opened():
        with contextlib.suppress(KcmError):
            return (await decrypt(app, "acme", records)).plaintexts == [b"x"]
        return False

    await eventually(opened)


BASE = """
instance = "core-eu-1"
region = "eu"
root_public = "{root}"
state_dir = "s"
key_store = "k"
roster = "r"
identity = "i"
[secrets]
seal_key = "x"
[region_bus]
url = "tls://x"
credentials = "c"
[control_bus]
url = "tls://x"
credentials = "c"
[vault_bus]
url = "tls://x"
credentials = "c"
""".format(root="0" * 64)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[unsealer]\nsocket = "/x"', "name the unsealer's user"),
        ('[unsealer]\nsocket = "/x"\nuser = "a"\nuid = 7', "name the unsealer's user"),
        ('[unsealer]\nsocket = "/x"\nuid = 0', "unsealer.uid: is less than 1"),
        (
            '[unsealer]\nsocket = "/x"\nuid = 7\n[unsealer_environment]\nA = "b"',
            "into the unit of the unsealer",
        ),
    ],
)
def test_a_wrong_section_is_explained(tmp_path, more, says):
    (tmp_path / "core.toml").write_text(BASE + more)
    with pytest.raises(ConfigError, match=says):
        load(CoreConfig, str(tmp_path / "core.toml"))


def test_a_right_section_is_read(tmp_path):
    (tmp_path / "core.toml").write_text(f'{BASE}[unsealer]\nsocket = "/x"\nuser = "kcm-unsealer"')
    found = load(CoreConfig, str(tmp_path / "core.toml")).unsealer
    assert found is not None
    assert (str(found.socket), found.user, found.uid) == ("/x", "kcm-unsealer", None)
