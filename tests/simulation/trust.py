"""Identities and a verifier that cost nothing: a keyed hash instead of Ed25519.

Everything else is production's: who may say what, one encoding for one message, the ids of holds.
What was verified once is remembered, since verification is a function of the roster and the bytes.
A statement that was tampered with is refused as it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import RosterFiles, Rosters
from kcm_schemas.roster import (
    Grant,
    Instance,
    Operator,
    OperatorRole,
    Region,
    Retirement,
    Role,
    Roster,
)
from kcm_trust.endorsements import Endorsements
from kcm_trust.identity import ROOT, Identity
from kcm_trust.verify import Untrusted, Verifier

from tests.simulation.disk import SimDisk

ROOT_KEY: Final = Identity(ROOT, Ed25519PrivateKey.from_private_bytes(bytes(32)), "simulation")
"""Signs rosters, and is as real as in production: there are few of them."""

ID: Final = bytes(16)
SYSTEM: Final = "simulation"

REMEMBERED: Final = (
    "tenant", "link", "service", "app", "registered", "accepted", "root_keys",
    "service_keys", "hold", "lift", "hold_or_lift", "receipt", "receipt_once", "result", "lease",
    "peer_lease", "key_use", "pull", "pull_reply", "admin", "admin_reply",
)  # fmt: skip
"""Verifications of one statement."""


class HashKey:
    """Stands for an ``Ed25519PrivateKey``; who has the public part could sign, and nobody does."""

    def __init__(self, name: str) -> None:
        self._public: Final = blake2b(name.encode(), digest_size=32, person=b"kcm-sim-key").digest()

    def public_key(self) -> HashKey:
        return self

    def public_bytes_raw(self) -> bytes:
        return self._public

    def sign(self, message: bytes) -> bytes:
        return signature(self._public, message)


def signature(public: bytes, message: bytes) -> bytes:
    """64 bytes that depend on every bit of key and message."""
    return blake2b(message, digest_size=64, key=public).digest()


def identity(name: str) -> Identity:
    """The identity of an instance or an operator."""
    key: Any = HashKey(name)
    return Identity(name, key, SYSTEM)


class SimVerifier(Verifier):
    """Production's verifier with the other signature, and a memory."""

    def __init__(
        self, roster: Roster, endorsements: Mapping[str, Endorsements] | None = None
    ) -> None:
        super().__init__(roster, endorsements)
        for name in REMEMBERED:
            method = getattr(super(), name, None)
            if method is not None:
                setattr(self, name, _remembering(method))

    def _holds(self, public: bytes, signed: bytes, message: bytes) -> bool:
        return signed == signature(public, message)


class Verifiers:
    """One verifier for each roster and the lists beside it: whoever has both shares its memory."""

    def __init__(self) -> None:
        self._made: Final[dict[tuple[int, frozenset[str]], SimVerifier]] = {}

    def of(self, roster: Roster, endorsements: Mapping[str, Endorsements]) -> SimVerifier:
        """The one for these. Of every version there is one roster, and of everybody one list."""
        key = (roster.version, frozenset(endorsements))
        if key not in self._made:
            self._made[key] = SimVerifier(roster, endorsements)
        return self._made[key]


class SimRosterFiles(RosterFiles):
    """An instance's state directory, on its machine's disk."""

    def __init__(self, disk: SimDisk) -> None:
        super().__init__(Path("state"))
        self._disk: Final = disk

    def read(self) -> bytes | None:
        return self._disk.state.get("roster")

    def write(self, raw: bytes) -> None:
        self._disk.keep_state("roster", raw)

    def read_list(self, said: Retirement) -> bytes | None:
        return self._disk.state.get(said.endorsements.hex())

    def write_list(self, said: Retirement, raw: bytes) -> None:
        self._disk.keep_state(said.endorsements.hex(), raw)


class SimRosters(Rosters):
    """Production's holder, with verifiers that cost nothing."""

    def __init__(
        self, verifiers: Verifiers, verifier: SimVerifier, *, raw: bytes, files: RosterFiles
    ) -> None:
        super().__init__(verifier, raw=raw, root_public=ROOT_KEY.public, files=files)
        self._verifiers: Final = verifiers

    def _count(
        self,
        verifier: Verifier,
        names: frozenset[str],
        gone: frozenset[str],
        *,
        more: bool = False,
    ) -> None:
        shared = self._verifiers.of(verifier.roster, verifier.endorsements)
        super()._count(shared, names, gone, more=more)


def _remembering(verify: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[Any, ...], tuple[Any, str | None]] = {}

    def again(*what: Any) -> Any:
        found = known.get(what)
        if found is None:
            try:
                found = (verify(*what), None)
            except Untrusted as error:
                found = (None, error.reason)
            known[what] = found
        if found[1] is not None:
            raise Untrusted(found[1])
        return found[0]

    return again


def roster(
    instances: Iterable[tuple[str, Role, str]], operators: Iterable[str], regions: Iterable[str]
) -> Roster:
    """A roster of instances (name, role, region); every operator may do everything."""
    return Roster(
        system=SYSTEM,
        version=1,
        issued_ms=0,
        instances=[
            Instance(
                instance=name,
                role=role,
                region=region,
                public_key=identity(name).public,
                grants=[Grant(tenant="*", service="*")],
            )
            for name, role, region in instances
        ],
        operators=[
            Operator(operator=name, roles=list(OperatorRole), public_key=identity(name).public)
            for name in operators
        ],
        regions=[
            Region(
                region=region,
                seal_key_id=ID,
            )
            for region in regions
        ],
    )


def member(rosters: Rosters, name: str, incarnation: bytes) -> InstanceContext:
    """One incarnation of an instance on the roster."""
    return InstanceContext(identity(name), rosters.verifier.instance(name), rosters, incarnation)
