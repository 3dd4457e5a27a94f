"""A PIN is tried once.

A token locks after a few wrong PINs, and a probe comes every ten seconds: without a memory of the
token's answer, a typing error would lock an HSM within a minute. So the first login with a PIN file
runs alone, and a rejected PIN is not tried again until its file changes (``touch`` is enough). The
file is recognised by its metadata: the PIN itself never enters this process.

If the same PIN is now rejected, the owner of the token revoked it: an explicit denial. If the PIN
file changed since, it is an operator's error, which is not an explicit denial.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import L1Uri, Pkcs11Uri

LOGINS_MAX: Final = 1024
"""Tokens that are remembered: one per link at most; above that, the oldest one is forgotten."""

_PIN_REFUSED: Final = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})
_LOGIN_PROVEN: Final = frozenset({L1State.DISABLED, L1State.DELETED, L1State.INVALID})
"""States that a token reports only after a login."""

_NOT_AGAIN: Final = "the token did not accept this PIN; not tried again until its file changes"

_Version: TypeAlias = tuple[int, int, int]


@dataclass(slots=True)
class _Login:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    accepted: _Version | None = None
    refused: _Version | None = None

    def refusal(self, version: _Version, detail: str, cls: str) -> L1Error:
        """Return the meaning of the rejection of this version of the file."""
        slip = self.accepted not in {None, version}
        return L1Error(L1State.UNREACHABLE if slip else L1State.FORBIDDEN, detail, cls=cls)


class PinLockout:
    """Remembers for each token and PIN file which version of the file was accepted or rejected."""

    def __init__(self) -> None:
        self._logins: dict[tuple[object, ...], _Login] = {}

    @asynccontextmanager
    async def attempt(self, uri: L1Uri) -> AsyncIterator[None]:
        """Bracket one operation; raises `L1Error` instead of trying a bad PIN again.

        Learns from the `L1Error` of the operation, or from its success.
        """
        match uri:
            case Pkcs11Uri(pin_source=str(source)):
                version = _version(source)
                if version is None:
                    yield  # the child reports that the file cannot be read
                    return
                async with self._gate(self._login(uri), version):
                    yield
            case _:
                yield

    @asynccontextmanager
    async def _gate(self, login: _Login, version: _Version) -> AsyncIterator[None]:
        if login.accepted == version:
            with_lock = False
        else:
            await login.lock.acquire()
            with_lock = True
        try:
            if login.refused == version:
                raise login.refusal(version, _NOT_AGAIN, "PinIncorrect")
            try:
                yield
            except L1Error as error:
                if error.cls in _PIN_REFUSED:
                    login.refused = version
                    raise login.refusal(version, error.detail, error.cls) from None
                if error.state in _LOGIN_PROVEN:
                    login.accepted, login.refused = version, None
                raise
            login.accepted, login.refused = version, None
        finally:
            if with_lock:
                login.lock.release()

    def _login(self, uri: Pkcs11Uri) -> _Login:
        token = (uri.module_path, uri.token, uri.serial, uri.slot_id, uri.pin_source)
        login = self._logins.pop(token, None) or _Login()
        self._logins[token] = login  # the most recently used is last
        if len(self._logins) > LOGINS_MAX:
            del self._logins[next(iter(self._logins))]
        return login


def _version(path: str) -> _Version | None:
    try:
        info = os.stat(path)  # noqa: PTH116 - one call, and no Path is needed
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns
