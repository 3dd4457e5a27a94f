"""The true secrets of sessions: computed from what a tap hears, with the callees' private keys.

Every session begins with a ticket on the broker, in which its secret is sealed for the session key
of one incarnation. The private keys are found in the memory of their owners (``hpke_keys``), and
the second decoder opens the tickets: of applications, of Gateways and of operators. No component
has an entry for this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from kcm_broker.roles import Account
from kcm_runtime.nats.connection import Connection
from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError
from kcm_schemas.session import SessionKey, Ticket
from kcm_schemas.subjects import in_region
from kcm_trust.verify import Verifier

from tests.integration.living import EU, Living, eventually
from tests.security import hpke_keys, scan
from tests.vectors import decoder, hpke_open

KEYS: Final = ("request", "reply", "ask")
"""The keys of a session. All else from which they follow is wiped when they are derived."""

_OPENS: Final = ("open", "open-app", "open-operator")


@dataclass(frozen=True, slots=True)
class Private:
    """The session key of an incarnation, and its private half by name (``hpke_keys``)."""

    key: SessionKey
    parts: dict[str, bytes]

    def secrets(self, ticket: Ticket) -> dict[str, bytes]:
        """What the session has that a ticket for this key begins: its keys, and how they begin."""
        info = decoder.session_info(
            (self.key.region, self.key.instance, self.key.key_id),
            (ticket.caller, ticket.incarnation, ticket.session_id),
            ticket.issued_ms,
            ticket.expiry_ms,
        )
        # What is missing of the seed serves only to answer a ticket that is not valid.
        raw = self.parts["seed"] + bytes(32) + self.parts["scalar"]
        shared, key, _ = hpke_open.opening(raw, ticket.ciphertext[: hpke_open.ENCAPSULATED], info)
        secret = hpke_open.open_sealed(raw, ticket.ciphertext, info)
        derived = decoder.direction_keys(secret, ticket.ciphertext, info)
        return {
            "hpke-secret": shared,
            "hpke-key": key,
            "secret": secret,
            **dict(zip(KEYS, derived, strict=True)),
        }


async def private_key(living: Living, bus: Connection, name: str, role: str, pid: int) -> Private:
    """Find the private half of the key that an instance offers now, in its own memory."""
    raw = b""

    async def offered() -> bool:
        nonlocal raw
        with suppress(KcmError):  # of an instance whose clock has just jumped
            raw = await bus.request(in_region(EU, role, name, "key"), b"", 2.0)
        return bool(raw)

    await eventually(offered)
    key = Verifier(living.context.highest()[1]).session_key(raw)
    return Private(key, hpke_keys.found(scan.memory(pid), key.public))


class Tap:
    """The tickets that a client hears, to whom the broker refuses nothing."""

    def __init__(self) -> None:
        self.heard: Final[list[tuple[str, Ticket]]] = []
        """The callee, and its ticket."""

    def pairs(self, since: int) -> set[tuple[str, str]]:
        """The callers and callees of all tickets from this number on."""
        return {(ticket.caller, callee) for callee, ticket in self.heard[since:]}

    def known(self, keys: Iterable[Private]) -> dict[str, bytes]:
        """The secrets of all tickets for these keys, as ``CALLEE/CALLER/KIND/NUMBER``."""
        by_id = {one.key.key_id: one for one in keys}
        return {
            f"{callee}/{ticket.caller}/{kind}/{number}": secret
            for number, (callee, ticket) in enumerate(self.heard)
            if ticket.key_id in by_id
            for kind, secret in by_id[ticket.key_id].secrets(ticket).items()
        }

    async def hear(self, message: Any) -> None:
        """Keep a ticket."""
        _, _, _, _, callee, verb = message.subject.split(".")
        if verb in _OPENS:
            self.heard.append((callee, decode(Ticket, message.data)))


@asynccontextmanager
async def tapped(living: Living) -> AsyncIterator[tuple[Connection, Tap]]:
    """A tap at the region's broker, and its connection."""
    tap = Tap()
    async with living.visitor(Account.REGION) as bus:
        for role in ("core", "gateway"):
            await bus.subscribe(f"kcm.v1.{EU}.{role}.*.*", tap.hear)
        await bus.flush()
        yield bus, tap
