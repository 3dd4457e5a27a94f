"""Where a client finds its system: one TOML file, written by ``kcm dev up`` or by an operator.

    system = "acme"
    root_public = "<64 hexadecimal digits>"
    roster = "roster"
    default_region = "eu"

    [regions.eu]
    url = "nats://127.0.0.1:4222"
    also = ["nats://127.0.0.1:4223"]     # further nodes, where the broker is a cluster
    app_user = "app"
    app_password_file = "secrets/eu/app"
    operator_user = "operator"
    operator_password_file = "secrets/eu/operator"

    [operator]
    name = "alice"
    key = "alice.key"

Paths are taken from the file's own directory. The operator's public half is on the roster; its key
file has mode 600. The root's public key is the one thing that is pinned: whoever may write this
file decides whom the client believes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from kcm_runtime.config import BusAddress, ConfigError, Section, load
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.files.secret_file import SecretFileError
from kcm_schemas.names import Name
from kcm_schemas.roster import Roster
from kcm_trust.identity import Identity
from kcm_trust.verify import STATEMENT_MAX, Untrusted, Verifier, verify_roster
from pydantic import Field

from kcm._internal.seen_roster import Seen
from kcm.errors import Unavailable

ENVIRONMENT: Final = "KCM_CONTEXT"
"""The environment variable that names the context file."""


class ContextError(Exception):
    """The context cannot be used; the text says what is wrong, ``hint`` what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint: Final = hint


class NotLetIn(Unavailable, ContextError):
    """The broker is there, and what the context says of it is wrong: asking again does not help.

    It is ``unavailable`` all the same: another region may answer, and a kill goes through that one.
    """

    def __init__(self, text: str, hint: str = "") -> None:
        Unavailable.__init__(self, text)
        ContextError.__init__(self, text, hint)  # last: the other one comes here without the hint

    def __reduce__(self) -> tuple[type[NotLetIn], tuple[str, str]]:  # type: ignore[override]
        return type(self), (self.detail, self.hint)


class RegionAccess(Section):
    """A region's broker, and the two users that a client may be there."""

    url: str
    also: tuple[str, ...] = ()
    """Further nodes of the same broker, where it is a cluster."""
    app_user: str
    app_password_file: Path
    operator_user: str
    operator_password_file: Path


class OperatorAccess(Section):
    """Who signs: the operator's name on the roster and the file with the private key."""

    name: Name
    key: Path


class _File(Section):
    system: Name
    root_public: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    roster: Path
    default_region: Name
    regions: Annotated[dict[Name, RegionAccess], Field(min_length=1, max_length=64)]
    operator: OperatorAccess | None = None


class ClientContext:
    """A checked context file."""

    def __init__(self, path: Path, content: _File) -> None:
        self.path: Final = path
        self.system: Final = content.system
        self.default_region: Final = content.default_region
        self.regions: Final[Mapping[str, RegionAccess]] = content.regions
        self._content: Final = content

    @classmethod
    def load(
        cls, path: str | Path | None = None, environ: Mapping[str, str] = os.environ
    ) -> ClientContext:
        """Read the file at ``path``, else at ``$KCM_CONTEXT``, else ``kcm dev up``'s.

        Raises ``ContextError``.
        """
        found = Path(path or environ.get(ENVIRONMENT) or default_path(environ))
        if not found.exists():
            raise ContextError(
                f"there is no context file at {found}",
                "start a development system with `kcm dev up`, or name a file with --context",
            )
        try:
            content = load(_File, str(found))
        except ConfigError as error:
            raise ContextError(str(error), f"mend {found}") from None
        if content.default_region not in content.regions:
            raise ContextError(f"{found}: default_region is none of its regions", f"mend {found}")
        return cls(found, content)

    def region(self, name: str | None) -> str:
        """``name``, or the default region; raises ``ContextError`` when it is not known."""
        chosen = name or self.default_region
        if chosen not in self.regions:
            known = ", ".join(sorted(self.regions))
            raise ContextError(f"the context knows no region {chosen}", f"regions are: {known}")
        return chosen

    def in_order(self, name: str | None) -> list[str]:
        """All regions, the chosen or default one first."""
        chosen = self.region(name)
        return [chosen, *sorted(region for region in self.regions if region != chosen)]

    def app_address(self, region: str) -> BusAddress:
        """The broker of a region as an application's user."""
        at = self.regions[region]
        return BusAddress(
            url=at.url,
            user=at.app_user,
            password_file=self._path(at.app_password_file),
            also=at.also,
        )

    def operator_address(self, region: str) -> BusAddress:
        """The broker of a region as the operators' user."""
        at = self.regions[region]
        return BusAddress(
            url=at.url,
            user=at.operator_user,
            password_file=self._path(at.operator_password_file),
            also=at.also,
        )

    @property
    def roster_path(self) -> Path:
        """The file with the roster."""
        return self._path(self._content.roster)

    @property
    def root_public(self) -> bytes:
        """The operator root's public key, which is pinned."""
        return bytes.fromhex(self._content.root_public)

    def believe(self, raw: bytes, seen: int = 0) -> Roster:
        """Verify a roster by the pinned root; raises ``Untrusted``."""
        return verify_roster(raw, self.root_public, seen)

    def verifier(self) -> Verifier:
        """Whom to believe, by the highest roster that was seen; raises ``ContextError``."""
        return Verifier(self.highest()[1])

    def highest(self) -> tuple[bytes, Roster]:
        """The higher one of the roster's file and of what was seen; raises ``ContextError``.

        As it was signed, and read. See ``kcm._internal.seen_roster``.
        """
        path = self.roster_path
        try:
            with path.open("rb") as file:
                raw = file.read(STATEMENT_MAX + 1)
            roster = self.believe(raw)
        except OSError as error:
            raise ContextError(f"cannot read the roster {path}: {error.strerror}") from None
        except Untrusted as error:
            raise ContextError(f"the roster {path} is not believed: {error}") from None
        if roster.system != self.system:
            raise ContextError(f"the roster {path} is of another system")
        try:
            return self.seen(raw, roster)
        except Untrusted as error:
            raise ContextError(
                f"the roster {path} does not fit to one that was seen before: {error}",
                "ask who signs rosters; `kcm roster show` shows the one that counts",
            ) from None
        except ConfigError as error:
            raise ContextError(
                str(error), "compare `version` of `kcm roster show` elsewhere, then remove it"
            ) from None

    def seen(self, raw: bytes, roster: Roster) -> tuple[bytes, Roster]:
        """Keep a roster as seen, if it is the highest one; returns that.

        Raises ``Untrusted`` and ``ConfigError``.
        """
        return Seen(self.roster_path, self.root_public).highest(raw, roster)

    def identity(self) -> Identity:
        """The operator's key; raises ``ContextError`` when none is named or it cannot be read."""
        operator = self._content.operator
        if operator is None:
            raise ContextError(
                f"{self.path} names no operator", "add [operator] with name and key to it"
            )
        try:
            return load_identity(operator.name, str(self._path(operator.key)), self.system)
        except SecretFileError as error:
            raise ContextError(str(error), "the context names this file") from None

    def _path(self, path: Path) -> Path:
        return self.path.parent / path


def default_path(environ: Mapping[str, str]) -> Path:
    """Where ``kcm dev up`` writes its context: in ``XDG_STATE_HOME``, else ``~/.local/state``."""
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "kcm" / "dev" / "context.toml"
