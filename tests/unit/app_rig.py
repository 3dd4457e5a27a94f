"""Two Gateways that serve applications, with a test's registry and engine, and the SDK."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from kcm._internal import sealed_channel
from kcm._internal.session_memory import SessionRandomness
from kcm_gateway.data_api import DataApi
from kcm_gateway.engine import Batch
from kcm_gateway.sealed_requests import SealedRequests
from kcm_keymem.random import KeyRandomness, SystemKeyRandomness
from kcm_keymem.slots import Slots
from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_lease import RegistryLease
from kcm_killswitch.model.registry_objects import object_digest
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.applications import Applications
from kcm_runtime.clock import SystemRandomness
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import Rosters
from kcm_schemas import data_subjects
from kcm_schemas.app import App, AppGrant
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.roster import Grant, Instance, Role
from kcm_sessions.session_keys import SessionKeys
from kcm_sessions.sessions import APPLICATIONS, Limits, Sessions
from kcm_trust.verify import Verifier

from tests.fakes.bus import Clock
from tests.unit import trust_rig
from tests.vectors.families.messages import identity

FAR_MS = 1 << 40

ROSTER = trust_rig.roster()
ROSTER = ROSTER.model_copy(
    update={
        "instances": [
            *(one.model_copy(update={"application": None}) for one in ROSTER.instances),
            Instance(
                instance="gw-eu-2",
                role=Role.GATEWAY,
                region="eu",
                public_key=identity("gw-eu-2").public,
                grants=[Grant(tenant="acme", service="*")],
            ),
        ]
    }
)
VERIFIER = Verifier(ROSTER)


def app(name: str = "shop", *grants: str, **fields: Any) -> App:
    """An application with the key that the vectors have for its name."""
    places = [text.split("/") for text in grants or ("acme/crm",)]
    entry: dict[str, Any] = {
        "app": name,
        "revision": 1,
        "previous": bytes(32),
        "public_key": identity(name).public,
        "grants": [
            AppGrant(tenant=tenant, service=service, verbs=["decrypt", "encrypt"])
            for tenant, service in sorted(places)
        ],
        "regions": ["eu"],
        "not_before_ms": 0,
        "not_after_ms": FAR_MS,
        "plain": False,
        "revoked": False,
    }
    return App(**(entry | fields))


def following(known: App, **fields: Any) -> App:
    """The next entry, with changes."""
    named = {"revision": known.revision + 1, "previous": object_digest(known)}
    return known.model_copy(update=named | fields)


class Engine:
    """Returns what it gets; the first record of a decryption is bad."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.lease_s = 3.0
        self.work: Any = lambda: None

    async def encrypt(self, tenant, service, plaintexts, contexts, *, dek_scope):
        return self._done(plaintexts)

    async def decrypt(self, tenant, service, records, contexts, asks=None):
        self.asks = asks
        return self._done(records, [Code.TAMPERED, *[Code.OK] * (len(records) - 1)])

    def _done(self, values, codes=()):
        self.calls += 1
        self.work()
        if self.error is not None:
            raise self.error
        return Batch(list(values), list(codes), self.lease_s)


class Audit:
    """An audit trail that keeps its events."""

    has_room = True
    refusal = "the audit buffer is full, and requests that cannot be recorded are refused"

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def emit(self, kind: str, **fields: Any) -> None:
        self.all.append((kind, fields))

    @property
    def events(self):
        """The events of data requests: type, code, count and failed."""
        return [
            (kind, fields["code"], fields["count"], fields["failed"])
            for kind, fields in self.all
            if kind.startswith("data.")
        ]

    @property
    def actors(self):
        return [fields["actor"] for kind, fields in self.all if kind.startswith("data.")]


class Served:
    """The requests of one Gateway."""

    def __init__(
        self,
        name: str = "gw-eu",
        clock: Clock | None = None,
        bounds: Limits = APPLICATIONS,
        verifier: Verifier = VERIFIER,
        randomness: KeyRandomness | None = None,
    ) -> None:
        self.clock, self.engine, self.audit = clock or Clock(), Engine(), Audit()
        self.cores: dict[str, Any] = {}
        self.registry, self.lease, self.slots = Registry(), RegistryLease(), Slots()
        self.me = InstanceContext(
            identity(name), verifier.instance(name), Rosters(verifier), os.urandom(16)
        )
        host = Host(self.me, self.clock, SystemRandomness(), self.audit.emit)
        self.revocations = Revocations(self.registry, "eu")
        held = HeldKeys(self.revocations, "app")
        self.knows_until = FOREVER
        freshness: Any = SimpleNamespace(
            registry=self.lease, lease=SimpleNamespace(until=lambda: self.knows_until)
        )
        self.applications = Applications(self.registry, freshness, "eu", self.clock, held)
        self.keys = SessionKeys(host, randomness or SystemKeyRandomness(), self.slots.lend)
        self.sessions: Sessions[App] = Sessions(
            host, self.keys, self.applications, self.slots.lend, bounds
        )
        self.sealed = SealedRequests(host, self.sessions)
        self.api = DataApi(
            host,
            self.engine,
            self.audit,
            applications=self.applications,
            sealed=self.sealed,
            carry=self.carry,
        )

    async def carry(self, core: str, verb: str, body: bytes) -> bytes:
        """To the Cores that a test has."""
        if core not in self.cores:
            raise KcmError(Code.UNAVAILABLE, f"no {core} is here")
        return await self.cores[core].answer(data_subjects.core_session("eu", core, verb), body)

    async def handle(self, subject, body):
        """A request without a seal."""
        return await self.api.handle(subject, body)

    async def answer(self, subject: str, body: bytes) -> bytes:
        """What the Gateway publishes for a request to it, refusals included."""
        try:
            if subject.count(".") == 5:
                return await self.sessions.handle(subject, body)
            return await self.api.handle_sealed(subject, body)
        except KcmError as error:
            return encode(Failure(v=1, error=error.code, detail=error.detail))


class Bus:
    """The transport of an application: to Gateways by name; a test bends what passes."""

    def __init__(self, *gateways: Served) -> None:
        self.gateways = {one.me.name: one for one in gateways}
        self.asked: list[tuple[str, str, bytes]] = []
        """Gateway, verb or operation, and message."""
        self.subjects: list[str] = []
        self.answers: list[bytes] = []
        self.bend: Any = None
        """Gets Gateway, verb and message; returns an answer in place of the Gateway's, or None."""
        self.closed = False

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        tokens = subject.split(".")
        if len(tokens) == 5:
            raise KcmError(Code.UNAVAILABLE, "no instance serves this at the moment")
        name, verb = tokens[4:6]
        self.asked.append((name, verb, body))
        self.subjects.append(subject)
        if name not in self.gateways:
            raise KcmError(Code.UNAVAILABLE, "no instance serves this at the moment")
        bent = None if self.bend is None else self.bend(name, verb, body)
        answer = await self.gateways[name].answer(subject, body) if bent is None else bent
        self.answers.append(answer)
        return answer

    async def close(self) -> None:
        self.closed = True

    def works(self) -> list[str]:
        """The Gateways that got requests to encrypt or decrypt, in order."""
        return [name for name, verb, _ in self.asked if verb not in ("key", "open", "session")]

    def message(self, verb: str) -> bytes:
        """The last message with this verb."""
        return [body for _, said, body in self.asked if said == verb][-1]


class Roster:
    """The roster of a test, which does not change."""

    verifier = VERIFIER
    old = False

    def __init__(self) -> None:
        self.refreshed = 0
        self.held_names: set[str] = set()
        self._listeners: list[Any] = []
        self.asked: list[str | None] = []

    async def ask(self, gateway: str | None) -> None:
        self.asked.append(gateway)

    def listen(self, on_change: Any) -> None:
        self._listeners.append(on_change)

    def hold(self, name: str) -> None:
        """An operator's hold on this Gateway becomes known."""
        self.held_names.add(name)
        for on_change in self._listeners:
            on_change(frozenset({name}))

    def held(self, name: str, public_key: bytes) -> bool:
        return name in self.held_names

    async def refresh(self) -> None:
        self.refreshed += 1


def channel(
    bus: Bus, name: str = "shop", clock: Clock | None = None, key: str = ""
) -> SimpleNamespace:
    """An application's channel, with the roster that it uses; ``key`` is whose key it has."""
    roster = Roster()
    signer = identity(name)
    if key:
        other = identity(key)
        signer = SimpleNamespace(name=name, sign_raw=other.sign_raw)
    clock = clock or next(iter(bus.gateways.values())).clock
    made = sealed_channel.SealedChannel(bus, signer, "eu", roster, clock, SessionRandomness())
    return SimpleNamespace(
        request=made.request, decrypt=made.decrypt, close=made.close, roster=roster, whole=made
    )
