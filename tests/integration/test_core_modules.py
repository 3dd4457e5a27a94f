"""No cloud's library is loaded in a running Core, whatever its tenants' keys are."""

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
from kcm_core.providers.state import L1State
from kcm_core.unsealer.import_guard import FORBIDDEN
from kcm_devsystem import system
from kcm_devsystem.configs import config_file, ready_file
from kcm_schemas.codes import KcmError

from tests.integration.living import EU, Living, decrypt, encrypt, eventually
from tests.l1.stand import admission
from tests.l1.stands import CLOUDS

pytestmark = pytest.mark.slow

CORE = f"core-{EU}-1"

PROGRAM = """
import atexit, json, runpy, sys
where = sys.argv.pop(1)
atexit.register(lambda: open(where, "w").write(json.dumps(sorted(sys.modules))))
runpy.run_module("kcm_core", run_name="__main__", alter_sys=True)
"""
"""A Core that says at its end which modules it had."""


CLOUD_PROVIDERS = {
    "kcm_core.providers.aws_kms.provider",
    "kcm_core.providers.azure_key_vault.provider",
}


@contextlib.contextmanager
def clouds(directory):
    """The admission stands of three clouds, and the environment that a Core needs for them."""
    with contextlib.ExitStack() as stack:
        stands = [
            stack.enter_context(admission(name, directory / name))
            for name in ("awskms", "azurekv", "gcpkms")
        ]
        environment = {k: v for one in stands for k, v in one.environment.items()}
        places = [one.environment["KCM_L1_ENDPOINTS"] for one in stands]
        yield stands, environment | {"KCM_L1_ENDPOINTS": ",".join(places)}


@contextlib.asynccontextmanager
async def running(directory, environment):
    """A development system with one Core, which states its modules in ``modules`` at its end."""
    options = system.Options(
        directory / "system",
        regions=(EU,),
        cores=1,
        unsealer=environment,
        die_with_parent=False,
        visitor=True,
    )
    state = await asyncio.to_thread(system.up, options, lambda _: None)
    try:
        living = Living(options, state)
        await asyncio.to_thread(living.allow)
        living.sigkill(CORE)
        async with replacement(options, directory / "modules"):
            yield living
    finally:
        await asyncio.to_thread(system.down, options.directory)


@contextlib.asynccontextmanager
async def replacement(options, modules):
    """A Core in place of the killed one."""
    member = next(m for m in options.everybody if m.name == CORE)
    config, ready = (at(options.directory, member) for at in (config_file, ready_file))
    ready.unlink()  # the killed Core's
    core = subprocess.Popen(  # noqa: ASYNC220 - it is waited for below
        [sys.executable, "-c", PROGRAM, str(modules), "--config", str(config)],
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
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


async def create(admin, stand):
    """A tenant and its service, with a root key in the cloud of a stand."""
    assert stand.name in CLOUDS
    link = statements.link(admin.identity, stand.name, uri=stand.uri, model="byok")
    found = await admin.put_link(EU, link)
    assert found.mechanism
    await put_tenant(admin, stand.name, link=stand.name)
    await admin.put(EU, "service", statements.service(admin.identity, stand.name, "crm"))


async def put_tenant(admin, name, *, link, revision=1):
    tenant = statements.tenant(
        admin.identity, name, link=link, regions=[EU], region_quorum="all", revision=revision
    )
    await admin.put(EU, "tenant", tenant)


async def opens(app, tenant, records):
    """Wait until the records of a tenant are decrypted."""

    async def opened():
        with contextlib.suppress(KcmError):
            return (await decrypt(app, tenant, records)).plaintexts == [b"x"]
        return False

    await eventually(opened)


@pytest.mark.timeout(240)
async def test_a_core_that_opened_keys_in_every_cloud_has_no_cloud_library(tmp_path):
    with clouds(tmp_path) as (stands, environment):
        async with running(tmp_path, environment) as living:
            async with Admin.open(living.context) as admin:
                for stand in stands:
                    await create(admin, stand)
            async with living.app() as app, Admin.open(living.context) as admin:
                sealed = {
                    stand.name: (await encrypt(app, stand.name, [b"x"])).records for stand in stands
                }
                # From one cloud to the next: what was encrypted before opens, and by the new key.
                await put_tenant(admin, "awskms", link="gcpkms", revision=2)
                (aws,) = (stand for stand in stands if stand.name == "awskms")
                aws.put(L1State.DELETED)
                for name, records in sealed.items():
                    await opens(app, name, records)
    modules = json.loads((tmp_path / "modules").read_text())
    assert "kcm_core.keys.vault" in modules
    loaded = [m for m in modules for name in FORBIDDEN if m == name or m.startswith(f"{name}.")]
    assert loaded == []
    assert not CLOUD_PROVIDERS & set(modules)
