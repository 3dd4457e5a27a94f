"""The identity of this process: its key, its roster, and the id of this incarnation.

The roster can change at run time, so callers read the verifier for every decision. The name,
role and region of this instance are those of its start.
"""

from __future__ import annotations

from dataclasses import dataclass

from kcm_schemas import limits
from kcm_schemas.names import key_target
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
    """The instance of this process, in one incarnation. ``joined`` is its roster entry at start."""

    identity: Identity
    joined: Instance
    rosters: Rosters
    incarnation: bytes

    @property
    def verifier(self) -> Verifier:
        """The verifier of the roster in force: read it for every decision, never store it."""
        return self.rosters.verifier

    @property
    def entry(self) -> Instance:
        """The entry of this instance on the roster in force, or the last one that there was."""
        try:
            return self.verifier.instance(self.name)
        except Untrusted:
            return self.joined

    @property
    def acts(self) -> bool:
        """Whether this instance may act: it is not retired, and is the same as at its start.

        Its grants may change.
        """
        try:
            now = self.verifier.acting(self.name)
        except Untrusted:
            return False
        was = self.joined
        same = (now.role, now.region, now.public_key) == (was.role, was.region, was.public_key)
        return same and now.application == was.application

    @property
    def key_target(self) -> str:
        """What a hold on this instance and its key is on."""
        return key_target(self.joined.instance, self.joined.public_key)

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
    """Load identity and roster; raises ``ConfigError`` unless the roster has this instance."""
    try:
        rosters = open_rosters(config.roster, bytes.fromhex(config.root_public), config.state_dir)
        system = rosters.verifier.roster.system
        identity = load_identity(config.instance, str(config.identity), system)
        entry = rosters.verifier.acting(config.instance)
    except (SecretFileError, Untrusted) as error:
        raise ConfigError(f"{config.instance}: {error}") from None
    if (entry.role, entry.region) != (role, config.region):
        raise ConfigError(
            f"the roster has {config.instance} as {entry.role.value} of region {entry.region}, not"
            f" as {role.value} of region {config.region}"
        )
    if entry.public_key != identity.public:
        raise ConfigError(f"the roster has another public key for {config.instance}")
    return InstanceContext(identity, entry, rosters, randomness.public(limits.ID_SIZE))
