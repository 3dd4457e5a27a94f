"""Who this process is: its identity, the roster it believes, and the id of this one run.

An instance remembers the highest roster version it has ever accepted, in its state directory, and
refuses a lower one, so that nobody can bring a removed instance back with an old roster.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from kcm_crypto.secretfile import SecretFileError
from kcm_schemas import limits
from kcm_schemas.roster import Instance, Role
from kcm_trust.identity import Identity
from kcm_trust.verify import Untrusted, Verifier, verify_roster

from kcm_bus.clock import Randomness
from kcm_bus.config import ConfigError, InstanceConfig
from kcm_bus.disk import sync_directory, write_whole

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
        verifier = load_roster(
            config.roster, bytes.fromhex(config.root_public), config.state_dir / _SEEN
        )
        system = verifier.roster.system
        identity = Identity.load(config.instance, str(config.identity), system)
        entry = verifier.acting(config.instance)
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
    version, digest = _read_seen(seen_file)
    roster = verify_roster(raw, root_public, version)
    here = sha256(raw).hexdigest()
    if roster.version == version and digest not in ("", here):
        raise Untrusted("the roster differs from one of the same version that was seen before")
    if roster.version > version:
        _write_seen(seen_file, f"{roster.version} {here}\n")
    return Verifier(roster)


def _read_seen(path: Path) -> tuple[int, str]:
    """The highest version seen and that roster's SHA-256; raises ``ConfigError`` when damaged."""
    try:
        version, digest = path.read_text().split()
        return int(version), digest
    except FileNotFoundError:
        return 0, ""
    except (OSError, ValueError):
        raise ConfigError(f"{path} is damaged; it says which roster was seen last") from None


def _write_seen(path: Path, text: str) -> None:
    """Remember for good; raises ``ConfigError``: a roster that may be forgotten is not used."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}, which says what roster was seen last: {error.strerror}"
        ) from None
