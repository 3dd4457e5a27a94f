"""``python -m tests.security.memscan``: no process has a key that it must not have in its memory.

A real system serves two tenants. Their true keys are computed from what is stored, and searched in
the memory of every process: before the kill of one tenant, after it, and in a child of the unsealer
while it works. Before the kill, each key is only where it may be. After it, no process has a key of
the killed tenant, and the keys of the other one are found: so the search is known to work.

That system has no secret pages (``tests.security.old_kernel``): otherwise the search would not see
the keys in arenas, neither those that must be there nor those that a purge left. Before it, where
the kernel has secret pages, a system with them is searched while it serves: no key is found in any
process, except the private session keys of instances, in their owners (``memscan_sessions``).

It reads the memory of other processes: run it as root.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from kcm_keymem.page_source import SYSTEM

from tests.integration.living import EU, Living, decrypt, encrypt, eventually
from tests.security import memscan_sessions, scan, true_keys
from tests.security.hpke_keys import NotFound
from tests.security.looking import Leak, Seen, child_of_unsealer, look, processes, told
from tests.security.old_kernel import refuse_memfd_secret

MAY: Final = {
    "root": {"core"},
    "service": {"core"},
    "unused": {"gateway"},
    "used": set[str](),
    "seal": {"core"},
}
"""By the kind of key: the processes that may have it while its tenant is served."""

IN_USE: Final = ("root", "service", "unused")
"""The kinds of key that must be found while a tenant is served."""

Part = Callable[[Living, Callable[[str], object]], Coroutine[Any, Any, None]]
"""A part of the search: gets a system, and what takes texts of what was found."""


@dataclass(slots=True)
class Tenant:
    """A tenant and its true keys, by kind and number."""

    name: str
    keys: dict[str, bytes] = field(default_factory=dict)
    batches: set[bytes] = field(default_factory=set)
    """The batches of pool keys that were searched for."""


def main() -> int:
    """Run the search, and say what was found; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.security.memscan", description=__doc__)
    parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("root alone reads the memory of other processes: run it as root\n")
        return 2
    try:
        if SYSTEM.lacks:
            print(f"keys in use are not hidden here: {', '.join(SYSTEM.lacks)}")
        else:
            _run(hidden, gateways=1)
            _run(memscan_sessions.hidden, gateways=2)
        refuse_memfd_secret()
        _run(search, gateways=1)
        _run(memscan_sessions.search, gateways=2)
    except (Leak, NotFound) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _run(part: Part, gateways: int) -> None:
    """Run a part with a system of its own."""
    with Living.started(regions=(EU,), cores=2, gateways=gateways) as living:
        asyncio.run(part(living, print))


async def hidden(living: Living, tell: Callable[[str], object]) -> None:
    """Search every process of a system with secret pages while it serves; raises ``Leak``.

    The memory of the Gateway was read before: the keys of its pool are known by their wrapped forms
    there.
    """
    tenant = await _made(living)
    await _use(living, tenant)
    if not any(name.startswith("unused/") for name in tenant.keys):
        raise Leak("the wrapped forms of the pool's keys are not found in the Gateway's memory")
    tell(told("in use, with secret pages", seen := look(living, _finder(living, (tenant,)))))
    for one in seen:
        if one.names:
            raise Leak(f"{one.process} shows {', '.join(sorted(one.names))}")


async def search(living: Living, tell: Callable[[str], object]) -> None:
    """Search every process of a system before, during and after a kill; raises ``Leak``."""
    acme, globex = tenants = await _made(living), await _made(living)
    for one in tenants:
        await _use(living, one)
    tell(told("before the kill", before := look(living, _finder(living, tenants))))
    only_where_it_may_be(before)
    # Cores that have just started complete a kill late, and a pool's keys end after some seconds:
    # the kill has to come before their end, and to be complete before it.
    await living.kill(await living.tenant(kind="softkey"))
    for one in tenants:
        found_somewhere(before, one, IN_USE)
        await _use(living, one)
    await living.kill(acme.name)
    tell(told(f"after the kill of {acme.name}", after := look(living, _finder(living, tenants))))
    nowhere(after, acme)
    only_where_it_may_be(after)
    found_somewhere(after, globex, IN_USE)
    tell(
        told(
            "a child of an unsealer, while it works",
            child := await child_of_unsealer(living, _finder(living, tenants)),
        )
    )
    only_where_it_may_be(child)


def only_where_it_may_be(seen: list[Seen]) -> None:
    """Raise ``Leak`` for a key in a process that must not have it."""
    for one in seen:
        wrong = sorted(name for name in one.names if one.role not in MAY[name.split("/")[1]])
        if wrong:
            raise Leak(f"{one.process} must not have {', '.join(wrong)}")


def nowhere(seen: list[Seen], tenant: Tenant) -> None:
    """Raise ``Leak`` for any key of a tenant in any process."""
    for one in seen:
        left = sorted(name for name in one.names if name.startswith(f"{tenant.name}/"))
        if left:
            raise Leak(f"{one.process} still has {', '.join(left)}")


def found_somewhere(seen: list[Seen], tenant: Tenant, kinds: tuple[str, ...]) -> None:
    """Raise ``Leak`` unless a key of each kind is found: otherwise the search proves nothing."""
    names = {name for one in seen for name in one.names}
    for kind in kinds:
        if not any(name.startswith(f"{tenant.name}/{kind}/") for name in names):
            raise Leak(f"the search does not find a key that must be there: {tenant.name}/{kind}")


async def _made(living: Living) -> Tenant:
    """A new tenant, with the keys that are stored."""
    name = await living.tenant(kind="softkey")
    keys = true_keys.TrueKeys(living.directory, EU)
    root = keys.root(name, living.keys.create(name, "softkey"))
    return Tenant(name, {"root/0": root, "service/0": keys.service(name, "crm", root)})


async def _use(living: Living, tenant: Tenant) -> None:
    """Encrypt and decrypt with new keys of the pool, and add them: the used and the unused ones."""
    async with living.app() as app:

        async def of_new_keys() -> bool:
            nonlocal record
            record = (await encrypt(app, tenant.name, [b"a record"])).records[0]
            return true_keys.batch_of(record) not in tenant.batches

        record = b""
        await eventually(of_new_keys, within_s=30.0)
        tenant.batches.add(true_keys.batch_of(record))
        await decrypt(app, tenant.name, [record])
    records = [record]
    service = tenant.keys["service/0"]
    gateway = next(pid for _, role, pid in processes(living.directory) if role == "gateway")
    found = {
        "used": [true_keys.of_record(record, service) for record in records],
        "unused": true_keys.unused(gateway, records, service),
    }
    for kind, keys in found.items():
        tenant.keys |= {f"{kind}/{len(tenant.keys) + n}": key for n, key in enumerate(keys)}


def _finder(living: Living, tenants: tuple[Tenant, ...]) -> scan.Search:
    keys = {f"{one.name}/{name}": key for one in tenants for name, key in one.keys.items()}
    return scan.Search(keys | {"region/seal/0": true_keys.TrueKeys(living.directory, EU).seal_key})


if __name__ == "__main__":
    sys.exit(main())
