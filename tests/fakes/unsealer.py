"""An unsealer in memory: the production port with keys whose state a test flips.

It encrypts for real (AES-GCM with the context as AAD), so a wrong context, mechanism, length or
version fails here as it fails there. ``hook`` is awaited before every operation, inside the
deadline: a test delays, counts or interleaves there.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import L1UriError, parse
from kcm_core.unsealer.frames import (
    BLOB_MAX,
    CONTEXT_MAX,
    DEADLINE_MAX_MS,
    DIGEST_SIZE,
    PLAINTEXT_MAX,
)
from kcm_core.unsealer.port import Probe, UnsealResult, Wrapped

Hook = Callable[[str, str], Awaitable[None]]
"""Called with the operation (``wrap``, ``unwrap``, ``probe``, ``inspect``) and the URI."""

MECHANISM: Final = "aes-gcm"


async def no_hook(operation: str, uri: str) -> None:
    """Let every operation pass at once."""


@dataclass(slots=True)
class FakeKey:
    """One customer's key. Assign to ``state`` to flip it; ``rotate`` keeps the old versions."""

    state: L1State = L1State.ENABLED
    principal: str = "fake"
    facts: dict[str, str] = field(default_factory=lambda: {"bits": "256"})
    versions: list[bytes] = field(default_factory=lambda: [os.urandom(32)])

    def rotate(self) -> None:
        self.versions.append(os.urandom(32))


class FakeUnsealer:
    """Implements ``UnsealerPort``; every URI that parses has a key of its own."""

    def __init__(self, hook: Hook = no_hook) -> None:
        self.keys: dict[str, FakeKey] = {}
        self.calls: list[tuple[str, str]] = []
        self.hook = hook

    def key(self, uri: str) -> FakeKey:
        """The key behind a URI, made at its first use."""
        return self.keys.setdefault(uri, FakeKey())

    async def wrap(
        self,
        uri: str,
        plaintext: bytes | bytearray | memoryview,
        context: bytes,
        *,
        deadline_s: float,
    ) -> Wrapped:
        _require(0 < len(plaintext) <= PLAINTEXT_MAX and len(context) <= CONTEXT_MAX)
        async with self._operation("wrap", uri, deadline_s) as key:
            version = len(key.versions) - 1
            nonce = os.urandom(12)
            sealed = AESGCM(key.versions[version]).encrypt(nonce, plaintext, context)
            blob = version.to_bytes(4, "big") + nonce + sealed
            return Wrapped(blob, MECHANISM, str(version), key.principal)

    async def unwrap_into(
        self,
        uri: str,
        blob: bytes,
        context: bytes,
        mechanism: str,
        out: memoryview,
        *,
        deadline_s: float,
    ) -> UnsealResult:
        try:
            _require(0 < len(blob) <= BLOB_MAX and len(context) <= CONTEXT_MAX and bool(mechanism))
            async with self._operation("unwrap", uri, deadline_s) as key:
                plaintext, version = _open(key, blob, context, mechanism)
                _require(len(plaintext) == len(out), "malformed answer: the plaintext's length")
                out[:] = plaintext
                return UnsealResult(str(version), key.principal)
        except BaseException:
            out[:] = bytes(len(out))
            raise

    async def probe(
        self,
        uri: str,
        blob: bytes,
        context: bytes,
        mechanism: str,
        digest: bytes,
        *,
        deadline_s: float,
    ) -> Probe:
        _require(0 < len(blob) <= BLOB_MAX and len(context) <= CONTEXT_MAX and bool(mechanism))
        _require(len(digest) == DIGEST_SIZE)
        async with self._operation("probe", uri, deadline_s) as key:
            plaintext, version = _open(key, blob, context, mechanism)
            if not hmac.compare_digest(hashlib.sha256(plaintext).digest(), digest):
                raise L1Error(L1State.INVALID, "the canary unwrapped to another value")
            return Probe(L1State.ENABLED, str(version), key.principal)

    async def inspect(self, uri: str, *, deadline_s: float) -> Mapping[str, str]:
        async with self._operation("inspect", uri, deadline_s) as key:
            return dict(key.facts)

    @asynccontextmanager
    async def _operation(self, name: str, uri: str, deadline_s: float) -> AsyncIterator[FakeKey]:
        _require(0.001 <= deadline_s <= DEADLINE_MAX_MS / 1000)  # also refuses NaN
        try:
            parse(uri)
        except L1UriError as error:
            raise L1Error(L1State.UNREACHABLE, str(error), cls="L1UriError") from None
        self.calls.append((name, uri))
        try:
            async with asyncio.timeout(deadline_s):
                await self.hook(name, uri)
        except TimeoutError:
            raise L1Error(L1State.UNREACHABLE, "no answer within the deadline") from None
        key = self.key(uri)
        if key.state is not L1State.ENABLED:
            raise L1Error(key.state, "the fake says so")
        yield key


def _require(good: bool, hint: str = "malformed request: an argument is out of bounds") -> None:
    if not good:
        raise L1Error(L1State.INVALID, hint, cls="FrameError")


def _open(key: FakeKey, blob: bytes, context: bytes, mechanism: str) -> tuple[bytes, int]:
    if mechanism != MECHANISM:
        raise L1Error(L1State.UNREACHABLE, "the provider does not know this mechanism")
    version = int.from_bytes(blob[:4], "big")
    try:
        opened = AESGCM(key.versions[version]).decrypt(blob[4:16], blob[16:], context)
    except (InvalidTag, IndexError, ValueError):
        raise L1Error(L1State.INVALID, "the blob does not authenticate") from None
    return opened, version
