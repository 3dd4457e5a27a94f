"""Who this process is: its identity, the roster it believes, and the id of this one run.

The roster may become another one while it runs: whoever has to know whom to believe asks for the
verifier every time. What this instance is (name, role, region) stays what it was at its start.
"""

from __future__ import annotations

from dataclasses import dataclass

from kcm_schemas import limits
from kcm_schemas.roster import Instance, Role
from kcm_trust.identity import Identity
from kcm_trust.verify import Untrusted, Verifier

from kcm_runtime.clock import Randomness
from kcm_runtime.config import ConfigError, InstanceConfig
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.roster.store import Rosters, open_rosters


@dataclass(frozen=True, slots=True)
class InstanceContext:
    """The instance that this process is, in one incarnation. ``joined`` is its entry at start."""

    identity: Identity
    joined: Instance
    rosters: Rosters
    incarnation: bytes

    @property
    def verifier(self) -> Verifier:
        """Whom to believe now: ask every time, and keep it nowhere."""
        return self.rosters.verifier

    @property
    def entry(self) -> Instance:
        """The entry on the roster of now, or the last one that there was."""
        try:
            return self.verifier.instance(self.name)
        except Untrusted:
            return self.joined

    @property
    def acts(self) -> bool:
        """Whether this instance may act: it is on the roster as it was, and not retired."""
        try:
            now = self.verifier.acting(self.name)
        except Untrusted:
            return False
        was = self.joined
        return (now.role, now.region, now.public_key) == (was.role, was.region, was.public_key)

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.joined.instance

    @property
    def region(self) -> str:
        """The instance's region."""
        return self.joined.region

    @property
    def role(self) -> Role:
        """The instance's role."""
        return self.joined.role


def load_instance(config: InstanceConfig, role: Role, randomness: Randomness) -> InstanceContext:
    """Load identity and roster; raises ``ConfigError`` when this instance is not on it."""
    try:
        rosters = open_rosters(config.roster, bytes.fromhex(config.root_public), config.state_dir)
        system = rosters.verifier.roster.system
        identity = load_identity(config.instance, str(config.identity), system)
        entry = rosters.verifier.acting(config.instance)
    except (SecretFileError, Untrusted) as error:
        raise ConfigError(f"{config.instance}: {error}") from None
    if (entry.role, entry.region) != (role, config.region):
        raise ConfigError(f"the roster knows {config.instance} in another role or region")
    if entry.public_key != identity.public:
        raise ConfigError(f"the roster has another public key for {config.instance}")
    return InstanceContext(identity, entry, rosters, randomness.public(limits.ID_SIZE))
