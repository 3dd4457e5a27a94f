"""The content of a context file, for those who write one: ``client_context`` reads it.

It may be read on another machine and in another directory than those in which it is written. So the
paths in it are given: absolute, or relative to the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

ENVIRONMENT: Final = "KCM_CONTEXT"
"""The environment variable that names the context file."""

VERSION: Final = 2
"""The version of the context file's format."""

CONTEXT: Final = "context.toml"
"""The name of the context file in a directory of a client."""

ROSTER: Final = "roster"
"""The name of the roster there."""


@dataclass(frozen=True, slots=True)
class RegionFiles:
    """How a client finds and enters a region: the addresses of its broker, and files.

    Without ``ca``, the certificate is of an authority that the machine trusts.
    """

    urls: Sequence[str]
    ca: PurePath | None
    operator_credentials: PurePath | None = None
    app_credentials: PurePath | None = None
    signers: PurePath | None = None
    """Only an operator with role admin creates applications."""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """A client: the paths of its files, and the names and private keys with which it signs.

    Without ``default_region``, it is the first one.
    """

    roster: PurePath
    regions: Mapping[str, RegionFiles]
    operator: tuple[str, PurePath] | None = None
    app: tuple[str, PurePath] | None = None
    default_region: str = ""


def context(system: str, root_public: bytes, files: ClientFiles) -> dict[str, Any]:
    """Return the content of a client's context file."""
    return {
        "version": VERSION,
        "system": system,
        "root_public": root_public.hex(),
        "roster": files.roster,
        "default_region": files.default_region or next(iter(files.regions)),
        **_signer("operator", files.operator),
        **_signer("app", files.app),
        "regions": {
            name: addresses(one.urls)
            | _given(
                ca=one.ca,
                app_credentials=one.app_credentials,
                operator_credentials=one.operator_credentials,
                signers=one.signers,
            )
            for name, one in files.regions.items()
        },
    }


def default_path(environ: Mapping[str, str]) -> Path:
    """Return the context of ``kcm dev up``: in ``XDG_STATE_HOME``, else ``~/.local/state``."""
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "kcm" / "dev" / "context.toml"


def addresses(urls: Sequence[str]) -> dict[str, Any]:
    """Return the addresses of a broker: one node, and the others if it is a cluster."""
    first, *others = urls
    return {"url": first} | ({"also": others} if others else {})


def _signer(kind: str, named: tuple[str, PurePath] | None) -> dict[str, Any]:
    return {} if named is None else {kind: dict(zip(("name", "key"), named, strict=True))}


def _given(**paths: PurePath | None) -> dict[str, PurePath]:
    return {name: path for name, path in paths.items() if path is not None}
