"""An operator leaves a running system: what they lifted stays lifted, their key is worth nothing.

Nobody is restarted.
"""

import asyncio
import json
from pathlib import Path

import pytest
from kcm import Admin
from kcm._internal import statements
from kcm._internal.kills import Kills
from kcm.cli.main import run
from kcm.errors import ServiceError
from kcm_broker.roles import Account
from kcm_deployment.trust_files import Trust
from kcm_devsystem import system
from kcm_devsystem.identities import SYSTEM
from kcm_runtime.files.identity_file import create_identity, load_identity
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Operator, OperatorRole
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT, Identity

from tests.integration.living import EU, US, decrypt, encrypt, eventually, now_ms

pytestmark = pytest.mark.slow


def root(directory: Path) -> Identity:
    return load_identity(ROOT, str(Trust(directory).key(ROOT)), SYSTEM)


def kcm(living, *arguments, capsys):
    """Run a command; its exit code and what it says on stdout."""
    code = run([*arguments, "--context", str(living.context.path), "-o", "json"])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else None


def with_bob(living, tmp_path):
    """A roster, signed elsewhere, with one more operator; and that operator."""
    bob = create_identity("bob", str(tmp_path / "bob.key"), SYSTEM)
    known = living.context.believe(living.context.roster_path.read_bytes())
    operator = Operator(operator="bob", roles=list(OperatorRole), public_key=bob.public)
    new = known.model_copy(
        update={"version": known.version + 1, "operators": [*known.operators, operator]}
    )
    path = tmp_path / "next"
    path.write_bytes(encode(root(living.directory).sign(Kind.ROSTER, new)))
    return bob, path


def pids(living):
    return {row["name"]: row["pid"] for row in system.status(living.directory)}


class As:
    """Acts as another operator than the context's."""

    def __init__(self, living, identity):
        self.admin = Admin(living.context)
        self.admin.identity = identity  # type: ignore[misc]

    async def __aenter__(self):
        return self.admin

    async def __aexit__(self, *_):
        await self.admin.close()


async def roster_command(living, *arguments, capsys):
    """Run ``kcm roster`` beside the event loop; returns what it prints."""
    code, said = await asyncio.to_thread(lambda: kcm(living, "roster", *arguments, capsys=capsys))
    assert code == 0, (arguments, said)
    return said


async def retire_bob(living, known, directory, capsys):
    """Prepare, sign and put the roster: the root's key stays on another machine."""
    draft, key = directory / "without-bob", living.directory / "keys" / "root"
    for step in (
        ("retire", "bob", "--prepare", str(draft)),
        ("sign", str(draft), "--key", str(key), "--known", str(known)),
        ("put", f"{draft}.signed"),
    ):
        await roster_command(living, *step, capsys=capsys)
    shown = await roster_command(living, "show", capsys=capsys)
    assert {row["name"]: row["state"] for row in shown["entries"]}["bob"] == "retired"


async def opens(app, tenant, records):
    """Whether the records open."""
    try:
        return (await decrypt(app, tenant, records)).plaintexts == [b"text"]
    except KcmError:
        return False


async def killed(app, tenant, records):
    """Check that the tenant is killed."""
    with pytest.raises(KcmError) as caught:
        await decrypt(app, tenant, records)
    assert caught.value.code is Code.TENANT_KILLED


async def steal(living, bob, hold):
    """Try a lift with the stolen key of a retired operator, in every way; it counts nowhere."""
    forged = statements.lift(bob, hold.raw, issued_ms=now_ms(), reason="stolen")
    async with living.as_core(Account.CONTROL, US) as control, Admin.open(living.context) as admin:
        with pytest.raises(ServiceError):
            await admin.put_hold(EU, forged)
        await control.publish(subjects.broadcast_hold(US, "tenant", hold.id), forged)
        await control.flush()
        async with As(living, bob) as thief:
            with pytest.raises(ServiceError):
                await thief.tenants(EU)
        for region in (EU, US):
            (view,) = (await admin.matching_holds(region, hold.id.hex())).holds
            assert not view.lifted


@pytest.mark.timeout(240)
async def test_an_operator_leaves_and_what_shall_last_does(leaving, tmp_path, capsys):
    living = leaving
    running = pids(living)
    tenant, dark = await living.tenant(), await living.tenant()
    async with living.app() as app:
        sealed = (await encrypt(app, tenant, [b"text"])).records
        other = (await encrypt(app, dark, [b"text"])).records

    bob, path = with_bob(living, tmp_path)
    await roster_command(living, "put", str(path), capsys=capsys)

    # Bob lifts a kill of one tenant, and places one on the other.
    kill = await living.kill(tenant)
    async with As(living, bob) as admin:
        kills = Kills(admin, [EU, US])
        until = admin.around.clock.elapsed() + 30
        await kills.lift(kill, "over", until)
        hold = kills.make("tenant", dark, "drill")
        await kills.place(hold, until)

    said = await roster_command(living, "retire", "bob", "--dry-run", capsys=capsys)
    assert [one["what"] for one in said["signed"]] == [f"lift {kill.hex()}"]
    assert said["signed"][0]["regions"] == [EU, US]
    await retire_bob(living, path, tmp_path, capsys)

    async with living.app() as app:
        # The lift stays, and the hold of the retired operator counts.
        await eventually(lambda: opens(app, tenant, sealed))
        await killed(app, dark, other)
        await steal(living, bob, hold)
        await killed(app, dark, other)
        # An operator who is not retired lifts it.
        await living.lift(hold.id)
        await eventually(lambda: opens(app, dark, other))
    assert pids(living) == running


@pytest.mark.timeout(240)
async def test_a_core_and_a_gateway_leave_and_the_others_serve_on(leaving, capsys):
    living = leaving
    tenant = await living.tenant()
    async with living.app() as app:
        sealed = await encrypt(app, tenant, [b"text"])
        for name in (f"core-{EU}-1", f"gateway-{US}-1"):
            said = await roster_command(living, "retire", name, "--yes", capsys=capsys)
            assert {one["what"].split()[0] for one in said["signed"]} <= {
                "accepted",
                "root-keys",
                "service-keys",
            }
        await eventually(lambda: opens(app, tenant, sealed.records))
        # Every one of these goes to a Core that acts, and the keys that the other wrapped count.
        for _ in range(8):
            assert await opens(app, tenant, sealed.records)
        again = await encrypt(app, tenant, [b"more"])
        assert (await decrypt(app, tenant, again.records)).plaintexts == [b"more"]
    async with living.app(US) as app:
        with pytest.raises(KcmError):
            await encrypt(app, tenant, [b"text"], region=US)
    async with Admin.open(living.context) as admin:
        for _ in range(4):
            assert (await admin.tenants(EU))[1] == 1
    # A kill is complete without those who left.
    await living.kill(tenant)
    assert all(row["running"] for row in system.status(living.directory))
