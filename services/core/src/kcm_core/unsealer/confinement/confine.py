"""The confinement of one server and its children.

A server enters it before it imports a library. A cloud's SDK runs code at its import, so there the
server restricts its files, too. A PKCS#11 module is loaded by a child, which allows itself the
files of its own URI and no others. A child can reach neither the server nor other children.

What the kernel cannot do is named in ``lacks``, and the server serves nevertheless: the Core shows
it as ``degraded``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from kcm_core.providers.uri import L1Uri
from kcm_core.unsealer.confinement import capabilities, grants, kernel, landlock, seccomp
from kcm_core.unsealer.confinement.landlock import Grant
from kcm_core.unsealer.kinds import Kind

SWITCH: Final = "KCM_L1_CONFINEMENT"
"""``off`` leaves everything as it is, for a vendor's library that cannot work otherwise."""

SWITCHED_OFF: Final = "confinement is switched off"

_EXECUTE: Final = frozenset({"awskms", "gcpkms"})
"""Providers whose SDK may be configured to fetch its credentials with another program."""

_IMPORT: Final = frozenset({"awskms", "azurekv", "gcpkms"})
"""Providers whose SDK is imported by the server."""


class Confinement:
    """How this process is confined. Made once, in the server."""

    def __init__(self, kind: Kind, environment: Mapping[str, str]) -> None:
        """Confine the server; never raises ``OSError``."""
        self._kind: Final = kind
        self._environment: Final = dict(environment)
        self._on: Final = environment.get(SWITCH) != "off"
        self._keep_out: Final = grants.kept_out(environment)
        self._abi = landlock.abi() if self._on else 0
        self._seen: dict[str, tuple[int, int] | None] = {}
        self._lacks: list[str] = [] if self._on else [SWITCHED_OFF]
        if self._on:
            self._enter()

    @property
    def lacks(self) -> Sequence[str]:
        """What is not in force here, in words for operators."""
        return tuple(self._lacks)

    @property
    def ages(self) -> bool:
        """Whether ``stale`` can become true: a server that restricts its files."""
        return bool(self._seen)

    @property
    def stale(self) -> bool:
        """Whether a file was replaced to which this server's rules belong."""
        return any(_identity(path) != was for path, was in self._seen.items())

    def enter_child(self, uri: L1Uri) -> None:
        """Confine a child that calls the key of a URI; raises ``OSError``."""
        if not self._abi:
            return
        needed = [] if self._kind.scheme in _IMPORT else [*self._of_provider(), *grants.of_uri(uri)]
        landlock.restrict(self._abi, needed or None, self._is_kept_out)

    def _enter(self) -> None:
        try:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            capabilities.drop_all()
        except OSError as error:
            self._lacks.append(f"privileges: {_reason(error)}")
        self._lacks += landlock.lacks(self._abi)
        try:
            if self._abi:
                landlock.restrict(self._abi, self._of_server(), self._is_kept_out)
        except OSError as error:
            self._abi = 0
            self._lacks.append(f"Landlock: {_reason(error)}")
        try:
            seccomp.install(may_execute=self._kind.scheme in _EXECUTE)
        except OSError as error:
            self._lacks.append(f"seccomp: {_reason(error)}")
        except seccomp.Unsupported:
            self._lacks.append("no seccomp for this processor")

    def _of_server(self) -> list[Grant] | None:
        """Return what a server needs that imports an SDK; its rules are those of its children."""
        if self._kind.scheme not in _IMPORT:
            return None
        authority = grants.of_authority(self._kind.authority) if self._kind.authority else []
        allowed = [*self._of_provider(), *authority]
        self._seen = {one.path: _identity(one.path) for one in allowed}
        return allowed

    def _of_provider(self) -> list[Grant]:
        return grants.of_provider(self._kind.scheme, self._environment)

    def _is_kept_out(self, place: str) -> bool:
        return grants.reaches(place, self._keep_out)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - many, for every look
    except OSError:
        return None
    return found.st_dev, found.st_ino
