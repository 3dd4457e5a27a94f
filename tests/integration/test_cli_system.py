"""The command and the SDK against a system of real processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kcm import Client, sync
from kcm.errors import TenantKilled, Unavailable, WrongRegion
from kcm.exit_codes import Exit
from kcm_devsystem import system
from kcm_devsystem.configs import config_file

from tests.integration.living import EU, US, Living, eventually

SECONDS = 60


class Shell:
    """Runs ``kcm`` as a user does; every warning is an error."""

    def __init__(self, living: Living, directory: Path) -> None:
        self.context = living.context.path
        self.directory = directory

    def __call__(
        self, *arguments: str, expect: int = Exit.OK, context: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-m", "kcm", *arguments],
            cwd=self.directory,
            env={"PATH": os.defpath, "KCM_CONTEXT": str(context or self.context)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def kcm(living: Living, tmp_path: Path) -> Shell:
    return Shell(living, tmp_path)


def changed(shell: Shell, old: str, new: str) -> Path:
    """Another context file, with something else in it."""
    text = shell.context.read_text()
    assert old in text
    path = shell.directory / "context.toml"
    path.write_text(text.replace(old, new))
    return path


async def test_a_life_of_a_tenant(kcm: Shell, living: Living, tmp_path: Path) -> None:
    name = f"life-{os.getpid()}"
    uri = await asyncio.to_thread(living.keys.create, name)
    kcm("l1", "link", name, uri)
    kcm("tenant", "create", name, "--link", name)
    kcm("tenant", "create", name, "--link", name)
    kcm("tenant", "create", name, "--link", name, "--region-quorum", "local", expect=Exit.REFUSED)
    kcm("tenant", "create", name, "--link", name, "--region-quorum", "local", "--revision", "2")
    kcm("tenant", "create", name, "--link", name, expect=Exit.REFUSED)
    kcm("service", "create", name, "crm")
    shown = json.loads(kcm("tenant", "show", name, "--region", US).stdout)
    assert shown["services"] == [{"service": "crm", "l3_version": 1}]
    # The Core that answers has opened it or has not been asked for its keys yet.
    assert shown["state"] in {"open", "closed"}

    plain = os.urandom(3 * 1024 * 1024 + 17)
    (tmp_path / "plain").write_bytes(plain)
    whose = ("--tenant", name, "--service", "crm")
    kcm("encrypt", "plain", *whose, "-o", "sealed")
    kcm("decrypt", "sealed", *whose, "-o", "opened")
    assert (tmp_path / "opened").read_bytes() == plain
    kcm("inspect", "sealed")
    kcm("decrypt", "sealed", *whose, "--region", US, "-o", "stolen", expect=Exit.REFUSED)
    assert not (tmp_path / "stolen").exists()

    radius = json.loads(kcm("kill", name, "--dry-run").stdout)
    assert radius[EU]["tenants"] == [name]
    status = json.loads(kcm("kill", name, "--reason", "a test").stdout)
    assert status["complete"] is True
    assert {incarnation["region"] for incarnation in status["incarnations"]} == {EU, US}
    refused = kcm("decrypt", "sealed", *whose, "-o", "opened-2", expect=Exit.REFUSED)
    assert json.loads(refused.stderr)["error"] == "tenant_killed"
    assert json.loads(kcm("tenant", "show", name).stdout)["state"] == "killed"

    kcm("lift", status["hold_id"], "--reason", "over")
    kcm("decrypt", "sealed", *whose, "-o", "opened-2")
    assert (tmp_path / "opened-2").read_bytes() == plain


async def test_every_core_says_itself_how_many_keys_it_has_in_use(
    kcm: Shell, living: Living
) -> None:
    members = [member for member in living.options.members if member.role.value == "core"]
    rows = json.loads(kcm("l1", "status").stdout)
    assert {(row["region"], row["core"]) for row in rows} == {(m.region, m.name) for m in members}
    assert {row["state"] for row in rows} == {"free"}
    name = f"use-{os.getpid()}"
    kcm("l1", "link", name, living.keys.create(name))
    kcm("tenant", "create", name, "--link", name, "--region", US)
    kcm("service", "create", name, "crm")
    (kcm.directory / "plain").write_bytes(b"a")
    whose = ("--tenant", name, "--service", "crm", "--region", US)
    kcm("encrypt", "plain", *whose, "-o", "sealed")

    async def used() -> bool:
        done = await asyncio.to_thread(kcm, "l1", "status", "--region", US)
        return sum(row["in_use"] for row in json.loads(done.stdout)) > 0

    await eventually(used)  # the key monitor looks several times a second


@pytest.mark.parametrize("seconds", ["1", "2", "3"])
async def test_a_region_that_hangs_keeps_nobody_from_hearing_of_the_other_one(
    fragile: Living, tmp_path: Path, seconds: str
) -> None:
    kcm, tenant = Shell(fragile, tmp_path), await fragile.tenant()
    pid = next(
        row["pid"] for row in system.status(fragile.directory) if row["name"] == f"core-{US}-1"
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        done = kcm("kill", tenant, "--timeout", seconds, expect=Exit.NOT_COMPLETE)
        status = json.loads(done.stdout)
        stored = {one["region"]: one["durable_at"] > 0 for one in status["regions"]}
        assert stored == {EU: True, US: False}
        assert f"in force in {EU}" in json.loads(done.stderr.splitlines()[-1])["detail"]
        shown = json.loads(kcm("hold", "show", status["hold_id"]).stdout)
        assert shown["complete"] is False
        arguments = ("--reason", "over", "--timeout", seconds)
        lifted = kcm("lift", status["hold_id"], *arguments, expect=Exit.NOT_COMPLETE)
        assert json.loads(lifted.stdout)["lifted"] is True
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_what_happened_is_recorded(kcm: Shell, living: Living) -> None:
    kcm("tenant", "list")

    async def recorded() -> bool:
        events = json.loads(kcm("audit", "tail", "-n", "500", "--all").stdout)
        assert not any(event["event"] == "not trusted" for event in events)
        return any(event["event"] == "admin.tenant-list" for event in events)

    await eventually(recorded)
    auditor = next(member for member in living.options.members if "auditor" in member.name)
    config = str(config_file(living.directory, auditor))
    done = kcm("audit", "verify", str(living.directory / "journal"), "--config", config)
    assert json.loads(done.stdout)["sound"] is True


def test_a_broker_that_is_not_there_is_told_at_once(kcm: Shell, living: Living) -> None:
    context = changed(kcm, living.context.app_address(EU).url, "tls://127.0.0.1:9")
    done = kcm("tenant", "list", "--region", EU, context=context, expect=Exit.UNAVAILABLE)
    assert "no program listens" in json.loads(done.stderr)["detail"]


def test_credentials_of_another_region_are_told(kcm: Shell, living: Living) -> None:
    right, wrong = (living.context.operator_address(region).credentials for region in (EU, US))
    context = changed(kcm, str(right), str(wrong))
    done = kcm("tenant", "list", "--region", EU, context=context, expect=Exit.USAGE)
    said = json.loads(done.stderr)
    assert "rejects these credentials" in said["detail"]
    assert str(wrong) in said["hint"]
    (kcm.directory / "plain").write_bytes(b"x")
    options = ("--region", EU, "--tenant", "acme", "--service", "files")
    bad = kcm.directory / "bad.creds"
    bad.write_bytes(b"\xff")
    bad.chmod(0o600)
    done = kcm("encrypt", "plain", *options, context=context_of_apps(kcm, living, bad), expect=2)
    assert str(bad) in json.loads(done.stderr)["detail"]


def context_of_apps(kcm: Shell, living: Living, credentials: Path) -> Path:
    """A context whose applications have other credentials."""
    return changed(kcm, str(living.context.app_address(EU).credentials), str(credentials))


def test_a_kill_goes_on_where_one_region_lacks_credentials(kcm: Shell, living: Living) -> None:
    name = asyncio.run(living.tenant())
    right = living.context.operator_address(EU).credentials
    context = changed(kcm, str(right), str(kcm.directory / "missing"))
    status = json.loads(kcm("kill", name, context=context).stdout)
    assert status["complete"]


def test_a_kill_goes_through_the_region_that_is_there(kcm: Shell, living: Living) -> None:
    name = asyncio.run(living.tenant())
    context = changed(kcm, living.context.app_address(EU).url, "tls://127.0.0.1:9")
    status = json.loads(kcm("kill", name, context=context).stdout)
    assert status["complete"] is True
    kcm("lift", status["hold_id"], "--reason", "over")


async def test_single_calls_at_the_same_time_come_back_each_to_its_own(living: Living) -> None:
    tenant = await living.tenant()
    async with Client.connect(living.context) as client:
        plain = [f"record {n}".encode() for n in range(2000)]
        sealed = await asyncio.gather(
            *(client.encrypt_one(tenant, "crm", item, b"c") for item in plain)
        )
        assert len(set(sealed)) == len(plain)
        opened = await asyncio.gather(
            *(client.decrypt_one(tenant, "crm", item, b"c") for item in sealed)
        )
        assert opened == plain


async def test_large_batches_are_split_and_share_keys_where_asked(living: Living) -> None:
    tenant = await living.tenant()
    async with Client.connect(living.context) as client:
        plain = [os.urandom(100_000) for _ in range(60)]
        sealed = await client.encrypt(tenant, "crm", plain, b"c", dek_scope="batch")
        assert (await client.decrypt(tenant, "crm", sealed.values, b"c")).values == plain


async def test_refusals_are_exceptions_of_their_own(living: Living) -> None:
    tenant = await living.tenant()
    async with (
        Client.connect(living.context) as client,
        Client.connect(living.context, US) as abroad,
    ):
        sealed = await client.encrypt_one(tenant, "crm", b"x")
        with pytest.raises(WrongRegion):
            await abroad.decrypt_one(tenant, "crm", sealed)
        hold_id = await living.kill(tenant)
        with pytest.raises(TenantKilled) as caught:
            await client.decrypt_one(tenant, "crm", sealed)
        assert not caught.value.retryable
        await living.lift(hold_id)

        async def opens() -> bool:
            """Whether the Gateway has heard of the lift."""
            try:
                return (await client.decrypt(tenant, "crm", [sealed])).values == [b"x"]
            except TenantKilled:
                return False

        await eventually(opens)


def test_the_blocking_client_needs_no_loop(living: Living) -> None:
    tenant = asyncio.run(living.tenant())
    with sync.Client(living.context) as client:
        sealed = client.encrypt(tenant, "crm", [b"a", b"b"])
        assert client.decrypt(tenant, "crm", sealed.values).values == [b"a", b"b"]
    with pytest.raises(Unavailable, match="no program listens"):
        sync.Client(changed_context(living))


def changed_context(living: Living) -> Path:
    path = living.directory / "elsewhere.toml"
    text = living.context.path.read_text()
    path.write_text(text.replace(living.context.app_address(EU).url, "tls://127.0.0.1:9"))
    return path
