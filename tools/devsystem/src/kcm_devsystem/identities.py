"""The root of trust of a development system: identities, secrets of regions, and the roster.

Everything is made once and kept; asking again changes nothing unless the plan changed, and then the
roster gets the next version. In production the operator root is made and kept offline, and only the
signed roster reaches the instances; here it lies in the same directory, which is why this is for
development only.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_keymem.arena import Arena
from kcm_keymem.pages import fill_random
from kcm_runtime.files.identity_file import create_identity, load_identity
from kcm_runtime.files.secret_file import read_secret, write_secret
from kcm_schemas import limits
from kcm_schemas.codec import encode
from kcm_schemas.roster import Grant, Instance, Operator, OperatorRole, Region, Role, Roster
from kcm_schemas.signed import Kind
from kcm_sealing.hpke import SECRET_SIZE, SUITE_NAME, HpkePrivate
from kcm_trust.identity import ROOT, Identity
from kcm_trust.verify import Untrusted, verify_roster

from kcm_devsystem.files import write_private

SYSTEM: Final = "dev"
OPERATOR: Final = "operator"

_SEAL_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Member:
    """An instance to be: its name follows from what it is and where."""

    role: Role
    region: str
    number: int

    @property
    def name(self) -> str:
        """As in ``core-eu-de-1``."""
        return f"{self.role.value}-{self.region}-{self.number}"


@dataclass(frozen=True, slots=True)
class Trust:
    """The files of a system's trust, below its directory."""

    root: Path

    @property
    def roster(self) -> Path:
        """The signed roster."""
        return self.root / "roster"

    @property
    def operator_key(self) -> Path:
        """The operator's private key."""
        return self.root / "keys" / OPERATOR

    def key(self, name: str) -> Path:
        """An instance's private key."""
        return self.root / "keys" / name

    def seal_key(self, region: str) -> Path:
        """A region's seal key."""
        return self.root / "secrets" / region / "seal-key"

    def hpke_key(self, region: str) -> Path:
        """A region's HPKE key."""
        return self.root / "secrets" / region / "hpke-key"


def make_trust(root: Path, members: list[Member], regions: list[str], now_ms: int) -> bytes:
    """Make what is missing, sign the roster, and return the root's public key."""
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
        )
        for member in members
    ]
    operator = Operator(
        operator=OPERATOR,
        roles=[OperatorRole.ADMIN, OperatorRole.SECURITY],
        public_key=_identity(OPERATOR, trust.operator_key).public,
    )
    known = _known(trust.roster, signer.public)
    roster = Roster(
        system=SYSTEM,
        version=known.version if known else 1,
        issued_ms=known.issued_ms if known else now_ms,
        instances=_with_retired(instances, known.instances if known else []),
        operators=_with_others(operator, known.operators if known else []),
        regions=[_region(trust, region, known) for region in regions],
    )
    if roster != known:
        version = known.version + 1 if known else 1
        roster = roster.model_copy(update={"version": version, "issued_ms": now_ms})
        write_private(trust.roster, encode(signer.sign(Kind.ROSTER, roster)))
    return signer.public


def root_public(root: Path) -> bytes:
    """The public key of the root that a system has already."""
    return load_identity(ROOT, str(Trust(root).key(ROOT)), SYSTEM).public


def _with_retired(instances: list[Instance], known: list[Instance]) -> list[Instance]:
    """Nobody comes back from retirement, and whoever is retired stays on the roster."""
    retired = {one.instance: one for one in known if one.retired is not None}
    wanted = [retired.pop(one.instance, one) for one in instances]
    return wanted + list(retired.values())


def _with_others(operator: Operator, known: list[Operator]) -> list[Operator]:
    """Operators that somebody else put on the roster stay there."""
    others = [one for one in known if one.operator != operator.operator]
    own = [one for one in known if one.operator == operator.operator and one.retired is not None]
    return [*(own or [operator]), *others]


def _identity(name: str, path: Path) -> Identity:
    known = load_identity if path.exists() else create_identity
    return known(name, str(path), SYSTEM)


def _known(path: Path, root_public: bytes) -> Roster | None:
    try:
        return verify_roster(path.read_bytes(), root_public, 0)
    except (FileNotFoundError, Untrusted):
        return None


def _region(trust: Trust, region: str, known: Roster | None) -> Region:
    """A region's entry; the names of its keys stay as long as the keys do."""
    (trust.root / "secrets" / region).mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = list(_make_secrets(trust, region))
    public = _hpke_public(trust.hpke_key(region))
    for entry in known.regions if known and not fresh else []:
        if entry.region == region and entry.hpke_public == public:
            return entry
    return Region(
        region=region,
        hpke_key_id=secrets.token_bytes(limits.ID_SIZE),
        hpke_suite=SUITE_NAME,
        hpke_public=public,
        seal_key_id=secrets.token_bytes(limits.ID_SIZE),
    )


def _make_secrets(trust: Trust, region: str) -> Iterator[Path]:
    """Make a region's missing secrets; yields the files that were made."""
    for path, size in (
        (trust.seal_key(region), _SEAL_KEY_SIZE),
        (trust.hpke_key(region), SECRET_SIZE),
    ):
        if not path.exists():
            arena = Arena()
            with arena.use() as view:
                fill_random(view[:size])
                write_secret(str(path), view[:size])
            arena.purge()
            yield path


def _hpke_public(path: Path) -> bytes:
    arena = Arena()
    try:
        with arena.use() as view:
            read_secret(str(path), view[:SECRET_SIZE])
            return HpkePrivate(view[:SECRET_SIZE]).public_bytes
    finally:
        arena.purge()
