"""The context of a client: one TOML file, written by ``kcm dev up`` or by an operator.

    version = 2                          # of this format
    system = "acme"
    root_public = "<64 hexadecimal digits>"
    roster = "roster"
    default_region = "eu"

    [regions.eu]
    url = "tls://nats-1.eu.example:4222"
    also = ["tls://nats-2.eu.example:4222"]   # further nodes, where the broker is a cluster
    ca = "eu/ca.pem"                     # who signs the broker's certificate
    app_credentials = "eu/app.creds"     # with which the broker lets the application in
    operator_credentials = "eu/operator.creds"
    signers = "eu/signers"               # for an operator who creates applications

    [operator]
    name = "alice"
    key = "alice.key"

    [app]                                # whose requests to encrypt and decrypt these are
    name = "shop"
    key = "shop.key"

Paths are relative to the file's directory. The operator's public key is on the roster, and the file
of the private key has mode 600. Only the operator root's public key is pinned here: a user who can
write this file decides which system the client trusts.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from kcm_runtime.config import BusAddress, ConfigError, Section, load
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.files.secret_file import SecretFileError
from kcm_schemas.names import Name
from kcm_schemas.roster import Roster
from kcm_trust.identity import Identity
from kcm_trust.verify import STATEMENT_MAX, Untrusted, Verifier, verify_roster
from pydantic import Field

from kcm._internal.client_files import ENVIRONMENT, VERSION, default_path
from kcm._internal.seen_roster import SeenRoster
from kcm.errors import Unavailable


class ContextError(Exception):
    """The context cannot be used. The text gives the reason, ``hint`` what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint: Final = hint


class NotLetIn(Unavailable, ContextError):
    """The broker replies, but the context is wrong about it, so a retry does not help.

    The code is still ``unavailable``: another region may reply, and a kill uses that one.
    """

    def __init__(self, text: str, hint: str = "") -> None:
        Unavailable.__init__(self, text)
        ContextError.__init__(self, text, hint)  # last: the first call reaches here without a hint

    def __reduce__(self) -> tuple[type[NotLetIn], tuple[str, str]]:  # type: ignore[override]
        return type(self), (self.detail, self.hint)


class RegionAccess(Section):
    """A region's broker, and how a client enters it: as an application, and as an operator."""

    url: str
    also: tuple[str, ...] = ()
    """Further nodes of the broker, if it is a cluster."""
    ca: Path | None = None
    """The authority of the broker's certificate; without it, those of this machine."""
    app_credentials: Path | None = None
    operator_credentials: Path | None = None
    signers: Path | None = None
    """The keys that sign credentials of applications (``kcm_broker.signers``)."""


class OperatorAccess(Section):
    """The operator's name on the roster, and the file of the private key."""

    name: Name
    key: Path


class AppAccess(Section):
    """The application's name, and the file of its private key."""

    name: Name
    key: Path


class _File(Section):
    version: Literal[2]
    system: Name
    root_public: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    roster: Path
    default_region: Name
    regions: Annotated[dict[Name, RegionAccess], Field(min_length=1, max_length=64)]
    operator: OperatorAccess | None = None
    app: AppAccess | None = None


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
        _check_version(found)
        try:
            content = load(_File, str(found))
        except ConfigError as error:
            raise ContextError(str(error), f"correct {found}") from None
        if content.default_region not in content.regions:
            text = f"{found}: default_region is not one of its regions"
            raise ContextError(text, f"correct {found}")
        return cls(found, content)

    def region(self, name: str | None) -> str:
        """Return ``name``, or the default region; raises ``ContextError`` for an unknown one."""
        chosen = name or self.default_region
        if chosen not in self.regions:
            known = ", ".join(sorted(self.regions))
            raise ContextError(f"the context has no region {chosen}", f"regions are: {known}")
        return chosen

    def in_order(self, name: str | None) -> list[str]:
        """Return all regions, the chosen or default one first."""
        chosen = self.region(name)
        return [chosen, *sorted(region for region in self.regions if region != chosen)]

    @property
    def app_name(self) -> str:
        """The name of the application; empty if there is none."""
        return self._content.app.name if self._content.app else ""

    @property
    def operator_name(self) -> str:
        """The name of the operator; empty if there is none."""
        return self._content.operator.name if self._content.operator else ""

    def app_address(self, region: str) -> BusAddress:
        """Return the broker's address for an application."""
        return self._address(region, "app", "application")

    def operator_address(self, region: str) -> BusAddress:
        """Return the broker's address for an operator."""
        return self._address(region, "operator", "operator")

    def _address(self, region: str, who: str, role: str) -> BusAddress:
        at = self.regions[region]
        credentials: Path | None = getattr(at, f"{who}_credentials")
        if credentials is None:
            raise ContextError(
                f"{self.path} has no {who}_credentials for {region}",
                f"add the file with which the broker of {region} lets this {role} in",
            )
        return BusAddress(
            url=at.url,
            credentials=self._path(credentials),
            ca=self.ca_path(region),
            inbox=f"_INBOX.{role}",
            also=at.also,
        )

    def signers_path(self, region: str) -> Path | None:
        """Return the file of the keys that sign an application's credentials, if there is one."""
        signers = self.regions[region].signers
        return signers and self._path(signers)

    def app_credentials(self, region: str) -> Path | None:
        """Return the file of the application's credentials, if the context names one."""
        credentials = self.regions[region].app_credentials
        return credentials and self._path(credentials)

    def ca_path(self, region: str) -> Path | None:
        """Return the file of the authority of a broker's certificate, if the context names one."""
        ca = self.regions[region].ca
        return ca and self._path(ca)

    @property
    def roster_path(self) -> Path:
        """The file with the roster."""
        return self._path(self._content.roster)

    @property
    def files(self) -> list[Path]:
        """The context file and the files that it names."""
        named = [self._content.roster]
        for at in self.regions.values():
            files = (at.ca, at.app_credentials, at.operator_credentials, at.signers)
            named += [one for one in files if one is not None]
        if self._content.operator is not None:
            named.append(self._content.operator.key)
        if self._content.app is not None:
            named.append(self._content.app.key)
        return [self.path, *map(self._path, named)]

    @property
    def root_public(self) -> bytes:
        """The pinned public key of the operator root."""
        return bytes.fromhex(self._content.root_public)

    def believe(self, raw: bytes, seen: int = 0) -> Roster:
        """Verify a roster by the pinned root; raises ``Untrusted``."""
        return verify_roster(raw, self.root_public, seen)

    def verifier(self) -> Verifier:
        """Return a verifier with the highest roster seen; raises ``ContextError``."""
        return Verifier(self.highest()[1])

    def highest(self) -> tuple[bytes, Roster]:
        """Return the highest of the roster's file and the rosters seen before: signed, and read.

        See ``seen_roster``. Raises ``ContextError``.
        """
        path = self.roster_path
        try:
            with path.open("rb") as file:
                raw = file.read(STATEMENT_MAX + 1)
            roster = self.believe(raw)
        except OSError as error:
            raise ContextError(
                f"cannot read the roster {path}: {error.strerror}",
                f"copy the signed roster of system {self.system} there, or correct `roster` in "
                f"{self.path}",
            ) from None
        except Untrusted as error:
            raise ContextError(
                f"the roster {path} is not trusted: {error}",
                f"compare `root_public` in {self.path} with the owner of the operator root; if it "
                f"is right, copy the signed roster of system {self.system} there again",
            ) from None
        if roster.system != self.system:
            raise ContextError(
                f"the roster {path} is of another system",
                f"copy the signed roster of system {self.system} there, or correct `system` in "
                f"{self.path}",
            )
        try:
            return self.seen(raw, roster)
        except Untrusted as error:
            raise ContextError(
                f"the roster {path} conflicts with one that was seen before: {error}",
                "ask the owner of the operator root; `kcm roster show` shows the valid one",
            ) from None
        except ConfigError as error:
            raise ContextError(
                str(error), "compare `version` of `kcm roster show` elsewhere, then remove it"
            ) from None

    def seen(self, raw: bytes, roster: Roster) -> tuple[bytes, Roster]:
        """Store a roster as seen, if it is the highest one; return the highest one.

        Raises ``Untrusted`` and ``ConfigError``.
        """
        return SeenRoster(self.roster_path, self.root_public).highest(raw, roster)

    def identity(self) -> Identity:
        """Return the operator's key; raises ``ContextError`` if it is missing or unreadable."""
        operator = self._content.operator
        if operator is None:
            raise ContextError(
                f"{self.path} names no operator", "add [operator] with name and key to it"
            )
        try:
            return load_identity(operator.name, str(self._path(operator.key)), self.system)
        except SecretFileError as error:
            raise ContextError(str(error), "the context names this file") from None

    def app_identity(self) -> Identity | None:
        """Return the application's key, or ``None`` if the context names no application.

        Raises ``ContextError`` if it is missing or unreadable.
        """
        app = self._content.app
        if app is None:
            return None
        try:
            return load_identity(app.name, str(self._path(app.key)), self.system)
        except SecretFileError as error:
            raise ContextError(
                str(error),
                f"[app] in {self.path} names this file; `kcm app create {app.name} --grant GRANT` "
                "creates one",
            ) from None

    def app_key(self, name: str) -> Path | None:
        """Return the file of an application's private key, if the context names it."""
        app = self._content.app
        return None if app is None or app.name != name else self._path(app.key)

    def _path(self, path: Path) -> Path:
        return self.path.parent / path


def _check_version(path: Path) -> None:
    """Raise ``ContextError`` for another version or none, before the file is read further."""
    try:
        with path.open("rb") as file:
            found = tomllib.load(file).get("version")
    except (OSError, ValueError):
        return  # ``load`` reports it
    if found is None:
        raise ContextError(
            f"{path} has no version: it was written before the context's format had one, or is not "
            "a context",
            f"write it again; or compare it with docs/cli.md, and add `version = {VERSION}`",
        )
    if type(found) is not int or found != VERSION:
        raise ContextError(
            f"{path} has version {found!r} of the context's format; this kcm reads {VERSION}",
            "use a kcm of that version, or write the context again",
        )
