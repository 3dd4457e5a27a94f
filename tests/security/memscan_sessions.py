"""The part of ``memscan`` for sessions: their secrets are at their two ends, and nowhere else.

Two Gateways and two Cores serve an application and an operator. Of every session in the system, the
true keys are searched in every process, and so are the private session keys of the four instances,
and all identities. Each is found at its ends, so the search is known to work, and in no other
process: what a thief reads in one Gateway opens nothing of another one. Then sessions are evicted
by others, and the clocks of one Gateway and one Core jump, so that their session keys are replaced
and their sessions expire: no process has any of it afterwards.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from kcm import Client
from kcm._internal.session_memory import SessionMemory
from kcm_deployment.trust_files import Trust
from kcm_devsystem import processes as started
from kcm_devsystem import state
from kcm_devsystem.configs import ready_file
from kcm_devsystem.identities import APP, OPERATOR, SYSTEM
from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.clock import SystemClock
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.nats.connection import Connection
from kcm_schemas import data_subjects, limits
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import Role
from kcm_sessions.caller import Caller
from kcm_sessions.session_opener import SessionOpener
from kcm_sessions.sessions import APPLICATIONS, INSTANCES, LOOK_S
from kcm_trust.verify import Verifier

from tests.integration.living import EU, Living, eventually
from tests.security import scan
from tests.security.looking import Leak, Seen, child_of_unsealer, look, processes, told
from tests.security.true_sessions import KEYS, Private, Tap, private_key, tapped

CORES: Final = (f"core-{EU}-1", f"core-{EU}-2")
GATEWAYS: Final = (f"gateway-{EU}-1", f"gateway-{EU}-2")
STEPPED: Final = (GATEWAYS[1], CORES[1])
"""The instances whose clocks jump."""

PAIRS: Final = frozenset(
    {(APP, callee) for callee in (*GATEWAYS, *CORES)}
    | {(OPERATOR, core) for core in CORES}
    | {(gateway, core) for gateway in GATEWAYS for core in CORES}
)
"""Caller and callee of the sessions that are searched for."""

AGAIN: Final = frozenset(
    (caller, callee)
    for caller, callee in PAIRS
    if callee in STEPPED or caller == GATEWAYS[1] or (caller, callee) == (GATEWAYS[0], CORES[0])
)
"""The pairs whose sessions end, so that they open others. Those of the application at the first
Gateway are evicted by others of it."""

OWN: Final = ("seed", "vector", "scalar", "identity")
"""What must be found in an instance of its private session key, and its identity."""

FOUND_S: Final = 60.0
"""Seconds in which every pair must have a session that is found."""

GONE_S: Final = LOOK_S + 30.0
"""Seconds in which what has ended must be overwritten."""


class Searched:
    """A system, what a tap heard in it, and the private session keys that were found."""

    def __init__(self, living: Living, bus: Connection, tap: Tap) -> None:
        self.living: Final = living
        self.bus: Final = bus
        self.tap: Final = tap
        self._keys: Final[list[Private]] = []

    async def find_keys(self, names: Collection[str]) -> None:
        """Find the private keys that these instances have now."""
        for name, role, pid in processes(self.living.directory):
            if name in names:
                self._keys.append(await private_key(self.living, self.bus, name, role, pid))

    def secrets(self) -> dict[str, bytes]:
        """All true secrets, as ``CALLEE/CALLER/KIND/NUMBER``; a private key is ``own``.

        The operator root's and the clients' keys are among them: no process may have them.
        """
        own = {
            f"{one.key.instance}/own/{part}/{number}": value
            for number, one in enumerate(self._keys)
            for part, value in one.parts.items()
        }
        identities = {
            f"{path.name}/own/identity/0": path.read_bytes()
            for path in (self.living.directory / "keys").iterdir()
        }
        return identities | own | self.tap.known(self._keys)

    def look(self) -> list[Seen]:
        """Search all processes."""
        return look(self.living, scan.Search(self.secrets()))

    async def use(self, pairs: Collection[tuple[str, str]] = PAIRS, since: int = 0) -> None:
        """Let an operator and an application ask until these pairs have opened sessions.

        Tickets count from number ``since`` on.
        """
        async with Client.connect(self.living.context) as client:

            async def all_pairs() -> bool:
                with suppress(KcmError):  # of an instance whose clock has just jumped
                    tenant = await self.living.tenant(kind="softkey")
                    record = await client.encrypt_one(tenant, "crm", b"a record")
                    await client.decrypt_one(tenant, "crm", record)
                return self.tap.pairs(since) >= set(pairs)

            await eventually(all_pairs, within_s=60.0)

    async def found(self) -> list[Seen]:
        """Search until the keys of all pairs are found at their ends: a ticket may be refused.

        Raises ``Leak`` for a secret that is elsewhere, and if they are not found.
        """
        until = time.monotonic() + FOUND_S
        while True:
            await self.use()
            only_at_ends(seen := self.look())
            try:
                found_at_ends(seen, PAIRS)
            except Leak:
                if time.monotonic() > until:
                    raise
            else:
                return seen

    async def evict(self, caller: str, callee: str, role: Role, count: int) -> None:
        """Open so many sessions in the name of a caller, with its key."""
        identity = load_identity(caller, str(Trust(self.living.directory).key(caller)), SYSTEM)
        verifier, randomness = Verifier(self.living.context.highest()[1]), SystemKeyRandomness()
        me = Caller(
            name=caller,
            region=EU,
            incarnation=randomness.public(limits.ID_SIZE),
            sign=identity.sign_raw,
            verifier=lambda: verifier,
            listen=lambda _: None,
            peers=role,
            subject_of=(
                data_subjects.gateway_session
                if role is Role.GATEWAY
                else data_subjects.core_session
            ),
        )
        for _ in range(count):
            # A caller opens few at once; each of these is another one's first.
            opener = SessionOpener(
                self.bus.request, me, SystemClock(), randomness, SessionMemory, open_s=5.0
            )
            (await opener.open(callee)).keys.close()


async def hidden(living: Living, tell: Callable[[str], object]) -> None:
    """Search a system with secret pages while it serves; raises ``Leak``.

    The library keeps private session keys and identities in its own memory: they are seen in their
    owners.
    """
    async with tapped(living) as (bus, tap):
        searched = Searched(living, bus, tap)
        await searched.use()
        await searched.find_keys((*GATEWAYS, *CORES))
        tell(told("sessions in use, with secret pages", seen := searched.look()))
        only_at_ends(seen)
        for one in seen:
            if shown := sorted(name for name in one.names if "/own/" not in name):
                raise Leak(f"{one.process} shows {', '.join(shown)}")


async def search(living: Living, tell: Callable[[str], object]) -> None:
    """Search a system without secret pages, before and after sessions end; raises ``Leak``."""
    for name in STEPPED:
        await _with_stepping_clock(living, name)
    async with tapped(living) as (bus, tap):
        searched = Searched(living, bus, tap)
        await searched.use()
        await searched.find_keys((*GATEWAYS, *CORES))
        tell(told("sessions in use", await searched.found()))
        finder = scan.Search(searched.secrets())
        child = await child_of_unsealer(living, finder)
        tell(told("a child of an unsealer, while it works", child))
        only_at_ends(child)
        await _end(searched, tell)


async def _end(searched: Searched, tell: Callable[[str], object]) -> None:
    """Have sessions evicted and expire, and keys replaced; look for what is left."""
    gateway, core = GATEWAYS[0], CORES[0]
    evicted = {(gateway, APP), (core, gateway)}
    ended = frozenset(
        name
        for name in searched.secrets()
        for callee, caller, kind, _ in (name.split("/"),)
        if kind != "identity" and (callee in STEPPED or (callee, caller) in evicted)
    )
    since = len(searched.tap.heard)
    await searched.evict(APP, gateway, Role.GATEWAY, APPLICATIONS.per_caller)
    await searched.evict(gateway, core, Role.CORE, INSTANCES.per_caller)
    for name, _, pid in processes(searched.living.directory):
        if name in STEPPED:
            os.kill(pid, signal.SIGUSR1)
    seen: list[Seen] = []

    async def over() -> bool:
        nonlocal seen
        await searched.use(AGAIN, since)  # callers notice it when they ask again
        seen = searched.look()
        return not any(one.names & ended for one in seen)

    try:
        await eventually(over, within_s=GONE_S)
    finally:
        nowhere(seen, ended)
    await searched.find_keys(STEPPED)
    seen = await searched.found()
    nowhere(seen, ended)
    tell(told("after sessions ended and keys were replaced", seen))


def only_at_ends(seen: Collection[Seen]) -> None:
    """Raise ``Leak`` for a secret in a process that is none of its session's ends."""
    for one in seen:
        wrong = sorted(name for name in one.names if one.process not in _ends(name))
        if wrong:
            raise Leak(f"{one.process} must not have {', '.join(wrong)}")


def _ends(name: str) -> set[str]:
    """Return the processes that may have a secret: of what a session begins with, none."""
    callee, caller, kind, _ = name.split("/")
    if caller == "own":
        return {callee}
    return {callee, caller} if kind in KEYS else set()


def nowhere(seen: Collection[Seen], ended: Collection[str]) -> None:
    """Raise ``Leak`` for any of these secrets in any process."""
    for one in seen:
        if left := sorted(one.names.intersection(ended)):
            raise Leak(f"{one.process} still has {', '.join(left)}")


def found_at_ends(seen: Collection[Seen], pairs: Collection[tuple[str, str]]) -> None:
    """Raise ``Leak`` unless the keys are found that must be there.

    These are those of a session of each pair, at both ends, and the private keys of all instances.
    """
    names = {one.process: one.names for one in seen}
    wanted = [
        (end, f"{callee}/{caller}/{kind}/")
        for caller, callee in pairs
        for end in {caller, callee} & names.keys()
        for kind in KEYS
    ]
    wanted += [(name, f"{name}/own/{part}/") for name in (*GATEWAYS, *CORES) for part in OWN]
    for end, start in wanted:
        if not any(name.startswith(start) for name in names[end]):
            raise Leak(f"the search does not find {start} in {end}, where it must be")


async def _with_stepping_clock(living: Living, name: str) -> None:
    """Restart an instance so that its clock can jump, with its own environment and arguments."""
    (entry,) = (one for one in _state(living).entries if one.name == name)
    place = Path(f"/proc/{entry.process.pid}")
    environment = dict(
        one.split("=", 1) for one in (place / "environ").read_text().split("\0") if one
    )
    python, *arguments = (place / "cmdline").read_text().split("\0")[:-1]
    at = arguments.index("-m")
    command = [python, "-m", "tests.security.stepping", *arguments[at + 1 :]]
    living.sigkill(name)
    member = next(one for one in living.options.everybody if one.name == name)
    process = started.spawn(
        name,
        command,
        entry.process.log_path,
        environment,
        die_with_parent=True,
        ready_file=ready_file(living.directory, member),
    )
    entry = replace(entry, process=process)
    state.save(living.directory, _state(living).with_entry(entry))
    await living.serves(entry)


def _state(living: Living) -> state.State:
    known = state.load(living.directory)
    assert known is not None
    return known
