"""An instance's configuration: one TOML file, checked before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, TypeVar

from kcm_schemas.names import Name
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from kcm_runtime.config_faults import faults
from kcm_runtime.logs import LogFormat


class ConfigError(Exception):
    """The configuration is not usable; the text says what to change."""


class Section(BaseModel):
    """A part of a configuration: frozen, without unknown keys, no values in its errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _beside(path: Path, info: ValidationInfo) -> Path:
    """Return a relative path as one that begins at the directory of the configuration."""
    directory = (info.context or {}).get(_DIRECTORY)
    return path if directory is None else directory / path


_DIRECTORY: Final = "directory"

PathBeside = Annotated[Path, AfterValidator(_beside)]
"""A path, relative to the directory of the file that has it."""


class BusAddress(Section):
    """One account of the broker, and how a client logs in there.

    It has ``credentials``, or a ``user`` and a ``password_file``: files that only their owner may
    read. With credentials it speaks TLS from the first byte; with ``ca``, it believes only this
    authority.
    """

    url: str
    user: str = ""
    password_file: PathBeside | None = None
    credentials: PathBeside | None = None
    """The file with the user's token and seed; read again at each connection."""
    inbox: Annotated[str, Field(pattern=r"^(_INBOX(\.[A-Za-z0-9-]{1,63}){1,2})?\z")] = ""
    """Where the user may receive replies, as in ``_INBOX.core.core-1``; empty: anywhere.

    With a role alone, as in ``_INBOX.operator``, the public key in the credentials completes it.
    """
    ca: PathBeside | None = None
    """The certificate of the authority that signs the broker's; without it, one of this machine."""
    also: tuple[str, ...] = ()
    """Further nodes of a clustered broker; the first that answers is used."""
    allow_old_broker: bool = False
    """Warn instead of stopping when a node is too old (``kcm_runtime.nats.server_version``)."""

    @model_validator(mode="after")
    def _one_login(self) -> BusAddress:
        by_password = bool(self.user) and self.password_file is not None
        if by_password == (self.credentials is not None):
            raise ValueError("give credentials, or user and password_file")
        return self

    @property
    def login_file(self) -> Path:
        """The file with the secret of the login."""
        chosen = self.credentials or self.password_file
        assert chosen is not None
        return chosen

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all nodes of the broker."""
        return (self.url, *self.also)


class LogSection(Section):
    """The log, which goes to the standard error stream."""

    format: LogFormat = "text"


class InstanceConfig(Section):
    """The settings of every instance; each component adds its own sections."""

    instance: Name
    region: Name
    development: bool = False
    root_public: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The operator root's Ed25519 public key in hexadecimal: the trust anchor."""
    roster: PathBeside
    identity: PathBeside
    state_dir: PathBeside
    ready_file: PathBeside | None = None
    region_bus: BusAddress
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _credentials(self) -> InstanceConfig:
        """Without credentials there is no TLS either. Only a developer's system may lack them."""
        for name, value in self:
            buses = value if isinstance(value, tuple) else (value,)
            open_ = any(isinstance(one, BusAddress) and not one.credentials for one in buses)
            if open_ and not self.development:
                raise ValueError(f"{name} needs credentials: `kcm init` makes them")
        return self


C = TypeVar("C", bound=Section)


def load(model: type[C], path: str, *, values: bool = False) -> C:
    """Read and validate a configuration; raises ``ConfigError``.

    With ``values``, its text shows wrong values: the file has no secrets.
    """
    try:
        with Path(path).open("rb") as file:
            context = {_DIRECTORY: Path(path).parent}
            return model.model_validate(tomllib.load(file), context=context)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{path}: {faults(error, values=values)}") from None
