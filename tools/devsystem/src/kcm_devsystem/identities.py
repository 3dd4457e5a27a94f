"""The trust files of a development system: identities, secrets of regions, and the roster.

All files are created once and kept. If the plan changes, the roster gets the next version. In
production the operator root is created and stored offline, and only the signed roster reaches the
instances. Here it is in the same directory, so this is for development only.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_keymem.arena import Arena
from kcm_keymem.pages import fill_random
from kcm_runtime.files.identity_file import create_identity, load_identity
from kcm_runtime.files.secret_file import write_secret
from kcm_schemas import limits
from kcm_schemas.codec import encode
from kcm_schemas.roster import Grant, Instance, Operator, OperatorRole, Region, Role, Roster
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT, Identity
from kcm_trust.verify import Untrusted, verify_roster

from kcm_devsystem.files import write_private

SYSTEM: Final = "dev"
OPERATOR: Final = "operator"
APPROVER: Final = "approver"
"""A second operator, with role security: some orders need two."""

APP: Final = "app"
"""The name of the application in the context; `kcm app create` gives it grants."""

_SEAL_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Member:
    """A planned instance, named by role, region and number.

    An ``embedded`` Gateway is part of one application's process.
    """

    role: Role
    region: str
    number: int
    embedded: bool = False

    @property
    def name(self) -> str:
        """The name, as in ``core-eu-de-1``."""
        return f"{self.role.value}-{self.region}-{self.number}"


@dataclass(frozen=True, slots=True)
class Trust:
    """The trust files below a system's directory."""

    root: Path

    @property
    def roster(self) -> Path:
        """The signed roster."""
        return self.root / "roster"

    @property
    def operator_key(self) -> Path:
        """The operator's private key."""
        return self.root / "keys" / OPERATOR

    @property
    def app_key(self) -> Path:
        """The private key of the context's application."""
        return self.root / "keys" / APP

    def key(self, name: str) -> Path:
        """Return the file of an instance's private key."""
        return self.root / "keys" / name

    def seal_key(self, region: str) -> Path:
        """Return the file of a region's seal key."""
        return self.root / "secrets" / region / "seal-key"


def make_trust(root: Path, members: list[Member], regions: list[str], now_ms: int) -> bytes:
    """Create missing files, sign the roster, and return the root's public key."""
    trust = Trust(root)
    (root / "keys").mkdir(mode=0o700, parents=True, exist_ok=True)
    signer = _identity(ROOT, trust.key(ROOT))
    instances = [
        Instance(
            instance=member.name,
            role=member.role,
            region=member.region,
            public_key=_identity(member.name, trust.key(member.name)).public,
            grants=[Grant(tenant="*", service="*")] if member.role is Role.GATEWAY else [],
            embedded=member.embedded,
        )
        for member in members
    ]
    operators = [
        Operator(
            operator=OPERATOR,
            roles=[OperatorRole.ADMIN, OperatorRole.SECURITY],
            public_key=_identity(OPERATOR, trust.operator_key).public,
        ),
        Operator(
            operator=APPROVER,
            roles=[OperatorRole.SECURITY],
            public_key=_identity(APPROVER, trust.key(APPROVER)).public,
        ),
    ]
    _identity(APP, trust.app_key)
    known = _known(trust.roster, signer.public)
    roster = Roster(
        system=SYSTEM,
        version=known.version if known else 1,
        issued_ms=known.issued_ms if known else now_ms,
        instances=_with_retired(instances, known.instances if known else []),
        operators=_with_others(operators, known.operators if known else []),
        regions=[_region(trust, region, known) for region in regions],
    )
    if roster != known:
        version = known.version + 1 if known else 1
        roster = roster.model_copy(update={"version": version, "issued_ms": now_ms})
        write_private(trust.roster, encode(signer.sign(Kind.ROSTER, roster)))
    return signer.public


def root_public(root: Path) -> bytes:
    """Return the public key of a system's existing root."""
    return load_identity(ROOT, str(Trust(root).key(ROOT)), SYSTEM).public


def _with_retired(instances: list[Instance], known: list[Instance]) -> list[Instance]:
    """Keep retired instances on the roster, and keep them retired."""
    retired = {one.instance: one for one in known if one.retired is not None}
    wanted = [retired.pop(one.instance, one) for one in instances]
    return wanted + list(retired.values())


def _with_others(own: list[Operator], known: list[Operator]) -> list[Operator]:
    """Keep other operators on the roster, and keep retired ones retired."""
    retired = {one.operator: one for one in known if one.retired is not None}
    names = {one.operator for one in own}
    others = [one for one in known if one.operator not in names]
    return [*(retired.get(one.operator, one) for one in own), *others]


def _identity(name: str, path: Path) -> Identity:
    known = load_identity if path.exists() else create_identity
    return known(name, str(path), SYSTEM)


def _known(path: Path, root_public: bytes) -> Roster | None:
    try:
        return verify_roster(path.read_bytes(), root_public, 0)
    except (FileNotFoundError, Untrusted):
        return None


def _region(trust: Trust, region: str, known: Roster | None) -> Region:
    """Return a region's entry. The id of its seal key changes only with the key."""
    (trust.root / "secrets" / region).mkdir(mode=0o700, parents=True, exist_ok=True)
    made = _make_seal_key(trust.seal_key(region))
    for entry in known.regions if known and not made else []:
        if entry.region == region:
            return entry
    return Region(region=region, seal_key_id=secrets.token_bytes(limits.ID_SIZE))


def _make_seal_key(path: Path) -> bool:
    """Create a missing seal key; return whether it was missing."""
    if path.exists():
        return False
    arena = Arena()
    with arena.use() as view:
        fill_random(view[:_SEAL_KEY_SIZE])
        write_secret(str(path), view[:_SEAL_KEY_SIZE])
    arena.purge()
    return True
