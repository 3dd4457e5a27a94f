"""Identities, secrets of regions, and the signed roster.

    keys/root              the operator root; it signs the roster, and belongs on no machine
    keys/NAME              the private key of an instance, an operator or an application
    secrets/REGION/seal-key
    roster                 public

All files are created once and kept. If the plan changes, the roster gets the next version.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_keymem.arena import Arena
from kcm_keymem.pages import fill_random
from kcm_runtime.files.identity_file import create_identity, load_identity
from kcm_runtime.files.private_files import make_directory, write_private
from kcm_runtime.files.secret_file import write_secret
from kcm_schemas import limits
from kcm_schemas.codec import encode
from kcm_schemas.roster import Instance, Operator, Region, Roster
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT, Identity
from kcm_trust.verify import Untrusted, verify_roster

from kcm_deployment.errors import DeploymentError
from kcm_deployment.members import Member, Person

_SEAL_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Trust:
    """The trust files below a directory."""

    root: Path

    @property
    def roster(self) -> Path:
        """The signed roster."""
        return self.root / "roster"

    def key(self, name: str) -> Path:
        """Return the file of a private key."""
        return self.root / "keys" / name

    def seal_key(self, region: str) -> Path:
        """Return the file of a region's seal key."""
        return self.root / "secrets" / region / "seal-key"


@dataclass(frozen=True, slots=True)
class Planned:
    """The system's name, and who belongs to it. ``applications`` only get a key each."""

    system: str
    regions: Sequence[str]
    members: Sequence[Member]
    operators: Sequence[Person]
    applications: Sequence[str] = ()


def make_trust(root: Path, planned: Planned, now_ms: int) -> bytes:
    """Create missing files, sign the roster, and return the root's public key.

    ``now_ms``, in milliseconds of Unix time, is the date of a new roster. Retired instances and
    operators stay retired, and other operators stay on the roster.
    """
    trust, system = Trust(root), planned.system
    make_directory(root / "keys")
    signer = _identity(system, ROOT, trust.key(ROOT))
    for name in planned.applications:
        _identity(system, name, trust.key(name))
    known = _known(trust.roster, signer.public)
    roster = Roster(
        system=system,
        version=known.version if known else 1,
        issued_ms=known.issued_ms if known else now_ms,
        instances=_instances(trust, planned, known.instances if known else ()),
        operators=_operators(trust, planned, known.operators if known else ()),
        regions=[_region(trust, region, known) for region in planned.regions],
    )
    if roster != known:
        version = known.version + 1 if known else 1
        roster = roster.model_copy(update={"version": version, "issued_ms": now_ms})
        write_private(trust.roster, encode(signer.sign(Kind.ROSTER, roster)))
    return signer.public


def root_public(root: Path, system: str) -> bytes:
    """Return the public key of an existing operator root; raises ``SecretFileError``."""
    return load_identity(ROOT, str(Trust(root).key(ROOT)), system).public


def known_roster(root: Path) -> Roster | None:
    """Return the present roster of a directory; ``None`` if there is none.

    Raises ``DeploymentError`` if the operator root there did not sign it.
    """
    trust = Trust(root)
    if not trust.key(ROOT).exists() or not trust.roster.exists():
        return None
    # The system's name is in a signature, and not in the key.
    found = _known(trust.roster, load_identity(ROOT, str(trust.key(ROOT)), "").public)
    if found is None:
        raise DeploymentError(
            f"the roster {trust.roster} is not signed by the operator root beside it, or has the"
            " form of another version",
            hint="copy the present roster there; `kcm roster show` shows its version",
        )
    return found


def _instances(trust: Trust, planned: Planned, known: Sequence[Instance]) -> list[Instance]:
    """Return the entries of instances, known ones first.

    An entry with the same key stays: its grants may be narrower by now. Those of an embedded
    Gateway are in the plan, which rules. Retired instances stay retired, planned or not.
    """
    names = {one.name for one in planned.members}
    found = {one.instance: one for one in known if one.retired is not None or one.instance in names}
    for member in planned.members:
        public = _identity(planned.system, member.name, trust.key(member.name)).public
        before = found.get(member.name)
        if before is not None and before.retired is not None:
            continue
        if before is None or member.application or before.public_key != public:
            found[member.name] = Instance(
                instance=member.name,
                role=member.role,
                region=member.region,
                public_key=public,
                grants=member.grants,
                application=member.application,
            )
    return list(found.values())


def _operators(trust: Trust, planned: Planned, known: Sequence[Operator]) -> list[Operator]:
    """Return the entries of operators. Others than the planned ones stay; retired ones stay so."""
    found = {one.operator: one for one in known}
    for person in planned.operators:
        public = _identity(planned.system, person.name, trust.key(person.name)).public
        before = found.get(person.name)
        if before is None or before.retired is None:
            found[person.name] = Operator(
                operator=person.name, roles=list(person.roles), public_key=public
            )
    return list(found.values())


def _identity(system: str, name: str, path: Path) -> Identity:
    known = load_identity if path.exists() else create_identity
    return known(name, str(path), system)


def _known(path: Path, root_public: bytes) -> Roster | None:
    try:
        return verify_roster(path.read_bytes(), root_public, 0)
    except (FileNotFoundError, Untrusted):
        return None


def _region(trust: Trust, region: str, known: Roster | None) -> Region:
    """Return a region's entry. The id of its seal key changes only with the key."""
    make_directory(trust.seal_key(region).parent)
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
