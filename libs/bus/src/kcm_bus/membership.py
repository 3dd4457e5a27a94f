"""Who this process is: its identity, the roster it believes, and the id of this one run.

An instance remembers the highest roster version it has ever accepted, in its state directory, and
refuses a lower one, so that nobody can bring a removed instance back with an old roster.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_crypto.secretfile import SecretFileError
from kcm_schemas import limits
from kcm_schemas.roster import Instance, Role
from kcm_trust.identity import Identity
from kcm_trust.verify import Untrusted, Verifier, verify_roster

from kcm_bus.clock import Randomness
from kcm_bus.config import ConfigError, InstanceConfig

_SEEN: Final = "roster-version"


@dataclass(frozen=True, slots=True)
class Membership:
    """The instance that this process is, in this boot."""

    identity: Identity
    entry: Instance
    verifier: Verifier
    boot: bytes

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.entry.instance

    @property
    def region(self) -> str:
        """The instance's region."""
        return self.entry.region

    @property
    def role(self) -> Role:
        """The instance's role."""
        return self.entry.role


def join_system(config: InstanceConfig, role: Role, randomness: Randomness) -> Membership:
    """Load identity and roster; raises ``ConfigError`` when this instance is not on it."""
    try:
        identity = Identity.load(config.instance, str(config.identity))
        verifier = load_roster(
            config.roster, bytes.fromhex(config.root_public), config.state_dir / _SEEN
        )
        entry = verifier.instance(config.instance)
    except (SecretFileError, Untrusted) as error:
        raise ConfigError(f"{config.instance}: {error}") from None
    if (entry.role, entry.region) != (role, config.region):
        raise ConfigError(f"the roster knows {config.instance} in another role or region")
    if entry.public_key != identity.public:
        raise ConfigError(f"the roster has another public key for {config.instance}")
    return Membership(identity, entry, verifier, randomness.public(limits.ID_SIZE))


def load_roster(path: Path, root_public: bytes, seen_file: Path) -> Verifier:
    """Verify a roster file against the root and the highest version seen; remember its version."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the roster {path}: {error.strerror}") from None
    seen = int(seen_file.read_text()) if seen_file.exists() else 0
    roster = verify_roster(raw, root_public, seen)
    if roster.version > seen:
        seen_file.parent.mkdir(parents=True, exist_ok=True)
        fresh = seen_file.with_suffix(".new")
        with fresh.open("w") as file:
            file.write(str(roster.version))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(seen_file)
    return Verifier(roster)
