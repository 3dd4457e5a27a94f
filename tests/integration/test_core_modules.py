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

CORE = f"core-{EU}-1"

PROGRAM = """
import atexit, json, runpy, sys
where = sys.argv.pop(1)
atexit.register(lambda: open(where, "w").write(json.dumps(sorted(sys.modules))))
runpy.run_module("kcm_core", run_name="__main__", alter_sys=True)
"""
"""A Core that says at its end which modules it had."""


@pytest.mark.timeout(240)
async def test_a_core_that_opened_keys_in_every_cloud_has_no_cloud_library(tmp_path):
    with (
        admission("awskms", tmp_path / "awskms") as aws,
        admission("azurekv", tmp_path / "azurekv") as azure,
        admission("gcpkms", tmp_path / "gcpkms") as gcp,
    ):
        stands = (aws, azure, gcp)
        environment = {k: v for one in stands for k, v in one.environment.items()}
        places = [one.environment["KCM_L1_ENDPOINTS"] for one in stands]
        environment["KCM_L1_ENDPOINTS"] = ",".join(places)
        options = system.Options(
            tmp_path / "system", regions=(EU,), cores=1, unsealer=environment, die_with_parent=False
        )
        state = await asyncio.to_thread(system.up, options, lambda _: None)
        living = Living(options, state)
        core = None
        try:
            living.sigkill(CORE)
            member = next(m for m in options.everybody if m.name == CORE)
            config, ready = (at(options.directory, member) for at in (config_file, ready_file))
            ready.unlink()  # the killed Core's
            core = subprocess.Popen(  # noqa: ASYNC220 - it is waited for below
                [sys.executable, "-c", PROGRAM, str(tmp_path / "modules"), "--config", str(config)],
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            )

            async def serves():
                assert core.poll() is None
                return ready.exists()

            await eventually(serves, within_s=90)
            async with Admin.open(living.context) as admin:
                for stand in stands:
                    assert stand.name in CLOUDS
                    link = statements.link(admin.identity, stand.name, uri=stand.uri, model="byok")
                    tenant = statements.tenant(
                        admin.identity,
                        stand.name,
                        link=stand.name,
                        regions=[EU],
                        region_quorum="all",
                    )
                    service = statements.service(admin.identity, stand.name, "crm")
                    found = await admin.put_link(EU, link)
                    assert found.mechanism
                    await admin.put(EU, "tenant", tenant)
                    await admin.put(EU, "service", service)
            async with living.app() as app, Admin.open(living.context) as admin:
                sealed = {
                    stand.name: (await encrypt(app, stand.name, [b"x"])).records for stand in stands
                }
                # From one cloud to the next: what was encrypted before opens, and by the new key.
                moved = statements.tenant(
                    admin.identity,
                    "awskms",
                    link="gcpkms",
                    regions=[EU],
                    region_quorum="all",
                    revision=2,
                )
                await admin.put(EU, "tenant", moved)
                aws.put(L1State.DELETED)
                for name, records in sealed.items():

                    async def opens(name=name, records=records):
                        with contextlib.suppress(KcmError):
                            return (await decrypt(app, name, records)).plaintexts == [b"x"]
                        return False

                    await eventually(opens)
        finally:
            if core is not None:
                core.send_signal(signal.SIGTERM)
                core.wait(30)
            await asyncio.to_thread(system.down, options.directory)
    modules = json.loads((tmp_path / "modules").read_text())
    assert "kcm_core.keys.vault" in modules
    loaded = [m for m in modules for name in FORBIDDEN if m == name or m.startswith(f"{name}.")]
    assert loaded == []
    assert not [
        m
        for m in modules
        if m
        in {"kcm_core.providers.aws_kms.provider", "kcm_core.providers.azure_key_vault.provider"}
    ]
