"""A region with one broker, one Core and one Gateway, whose processes and files a test handles."""

import asyncio
import os
import secrets
import signal
from pathlib import Path

from kcm import Admin
from kcm._internal.kills import Kills
from kcm_broker.roles import Account
from kcm_devsystem import processes, state, system, topology
from kcm_devsystem.state import Entry
from kcm_runtime.nats.ports import NobodyListens
from kcm_runtime.nats.streams import last
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError

from tests.audit_rig import until
from tests.integration.living import EU, Living, decrypt, encrypt, eventually

CORE, GATEWAY = f"core-{EU}-1", f"gateway-{EU}-1"


class Region(Living):
    """One region with one broker, one Core and one Gateway."""

    @property
    def store(self) -> Path:
        return self.directory / "brokers" / EU

    def pid(self, name):
        return next(row["pid"] for row in system.status(self.directory) if row["name"] == name)

    async def new_tenant(self):
        """A new tenant, made as soon as the Core relies on its registry again.

        For some seconds after an earlier harm it may not: entries of its last incarnation come back
        and differ from what it knows.
        """
        name = f"disk-{secrets.token_hex(4)}"
        await eventually(lambda: succeeded(self.tenant(regions=(EU,), kind="softkey", name=name)))
        return name

    async def down(self, *, orderly):
        """A power cut; or the broker had time to write down what it knows of its files."""
        for name in (CORE, GATEWAY):
            self.sigkill(name)
        await self.end_broker(orderly=orderly)

    async def end_broker(self, *, orderly):
        if not orderly:
            self.sigkill(EU)
            return
        os.kill(self.pid(EU), signal.SIGTERM)
        await eventually(self._ended)

    async def _ended(self):
        return not any(r["running"] for r in system.status(self.directory) if r["name"] == EU)

    async def start_broker(self):
        process = topology.spawn_broker(self.directory, EU, die_with_parent=False)
        known = state.load(self.directory)
        (old,) = [entry for entry in known.entries if entry.process.name == EU]
        entry = Entry(process, old.kind, old.role, old.region, old.instance, old.address)
        state.save(self.directory, known.with_entry(entry))
        ready = processes.ReadyFile(topology.ports_file(self.directory, process))
        await asyncio.to_thread(processes.wait_ready, process, ready)

    async def provisioned(self):
        """What provisioning made that was not there."""
        before = await self._streams()
        await self.provision()
        return await self._streams() - before

    async def _streams(self):
        found = set()
        for account in (Account.REGION, Account.VAULT):
            async with self.visitor(account) as connection:
                told = await connection.jetstream().streams_info()
            found |= {info.config.name for info in told}
        return found

    async def stored(self, hold_id):
        """Whether the region's stream has a message under the hold's place."""
        async with self.operator() as connection:
            place = subjects.control_hold(EU, "tenant", hold_id)
            return await last(connection, subjects.CONTROL_STREAM, place) is not None

    async def sign_again(self, *tenants):
        """The documented commands, as they were; they change nothing that is there."""
        for name in tenants:
            await self.tenant(regions=(EU,), kind="softkey", name=name)

    async def holds(self):
        async with Admin.open(self.context) as admin:
            return {
                view.hold_id: view.lifted
                for view in (await admin.holds(EU, bytes(16), everything=True)).holds
            }

    async def killed(self, tenant):
        async with Admin.open(self.context) as admin:
            kills = Kills(admin, [EU])
            hold = kills.make("tenant", tenant, "test")
            await kills.place(hold, admin.around.clock.elapsed() + 20)
        kept = self.directory / "state" / CORE / "holds" / f"{hold.id.hex()}.hold"
        await until(kept.exists)
        return hold.id


async def encrypt_once_served(app, tenant, plaintexts):
    """Encrypt as soon as the Gateway has found the broker that was started again.

    Then it may still differ from a Core: entries of the last incarnation come back to both.
    """
    replies = []

    async def served():
        try:
            replies.append(await encrypt(app, tenant, plaintexts))
        except NobodyListens:
            return False
        except KcmError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            return False
        return True

    await eventually(served)
    return replies[-1]


async def answer(app, tenant, records):
    """The code of every record, or the refusal of all of them."""
    try:
        done = await decrypt(app, tenant, records)
    except KcmError as error:
        return error.code, error.detail
    (code,) = set(done.codes) or {Code.OK}
    return code, ""


async def settled(app, tenant, records):
    """The answer that is not one of a system that has just started."""
    said = []

    async def final():
        said[:] = [await answer(app, tenant, records)]
        return said[0][0] not in (Code.UNAVAILABLE, Code.TENANT_UNAVAILABLE)

    try:
        await eventually(final, within_s=30)
    except AssertionError as error:
        raise AssertionError(f"{tenant} has not settled: {said[0]}") from error
    return said[0]


async def succeeded(work):
    """Whether work ended without an error of the system."""
    try:
        await work
    except KcmError:
        return False
    return True


async def says(app, tenant, records, code):
    """Whether this is the code of every record."""
    return (await answer(app, tenant, records))[0] is code
