"""A Core's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

from kcm_killswitch.model.probe_scheduler import PROBES_PER_S
from kcm_killswitch.replica.config import ReplicaConfig
from kcm_runtime.config import BusAddress, PathBeside, Section
from pydantic import Field, model_validator

ANSWER_LEASE_MS: Final = 10_000
L1_DEADLINE_S: Final = 10.0


class Secrets(Section):
    """Files of mode 600, read directly into locked memory.

    ``seal_key`` has 32 bytes and never leaves the region; without it, no key of the region can be
    unsealed again.
    """

    seal_key: PathBeside


class AuditTrimming(Section):
    """When the region's audit stream may be trimmed. Durations are in seconds."""

    quorum: Annotated[int, Field(ge=0, le=64)] = 0
    """Auditors that must have what is trimmed; 0 means all Auditors that follow the region."""
    keep_s: Annotated[float, Field(ge=0)] = 7 * 86_400.0
    """How long events stay in the stream after the Auditors have them."""
    keep_full_s: Annotated[float, Field(ge=0)] = 86_400.0
    """The same while the stream is 90 % full."""


class UnsealerSocket(Section):
    """An unsealer that runs under another user, started by the service manager.

    ``user`` or ``uid`` is that user; an unsealer of any other user is not used.
    """

    socket: Path
    user: str | None = None
    uid: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_user(self) -> Self:
        if (self.user is None) == (self.uid is None):
            raise ValueError("name the unsealer's user, by `user` or by `uid`")
        return self


class CoreConfig(ReplicaConfig):
    """The part of a Core's configuration that other instances do not have."""

    vault_bus: BusAddress
    """The account with the bucket of wrapped keys, which no Gateway and no client can enter."""
    secrets: Secrets
    key_store: PathBeside
    """Directory of the second, independent store of wrapped keys; shared by the region's Cores."""
    lease_ms: Annotated[int, Field(ge=1_000, le=60_000)] = ANSWER_LEASE_MS
    """How long a Gateway may use an answer, counted from the sending of its request."""
    l1_deadline_s: Annotated[float, Field(gt=0, le=60)] = L1_DEADLINE_S
    """Seconds until a call to a customer's root key times out."""
    probes_per_s: Annotated[float, Field(ge=1, le=1000)] = PROBES_PER_S
    """Largest number of probes of customers' root keys in a second."""
    hints: tuple[tuple[str, ...], ...] = ()
    """Listeners for a cloud's events: the name of a module in ``hints``, and its arguments."""
    audit: AuditTrimming = AuditTrimming()
    unsealer_environment: Annotated[dict[str, str], Field(default_factory=dict)]
    """Environment of the unsealer's processes, e.g. ``SOFTHSM2_CONF``. Nothing is inherited."""
    unsealer: UnsealerSocket | None = None
    """An unsealer with a user of its own. Without it, the Core starts one as its own user."""

    @model_validator(mode="after")
    def _one_unsealer(self) -> Self:
        if self.unsealer is not None and self.unsealer_environment and not self.hints:
            raise ValueError(
                "unsealer_environment is for an unsealer that the Core starts: put these variables"
                " into the unit of the unsealer"
            )
        return self

    @property
    def own_paths(self) -> tuple[Path, ...]:
        """The files and directories of the Core alone: nothing of the unsealer may use them."""
        return (
            self.identity,
            self.secrets.seal_key,
            self.state_dir,
            self.key_store,
            self.region_bus.login_file,
            self.control_bus.login_file,
            self.vault_bus.login_file,
        )
