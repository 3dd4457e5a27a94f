"""What a broker's port shows before any login: the first bytes, TLS, and the server's own words.

No name and no password is sent. The first of two handshakes verifies nothing, so that a broken
certificate is described and not only refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509

CLEAR_S: Final = 1.0
"""Seconds for a server to send something before the handshake."""

STEP_S: Final = 5.0
"""Seconds for one connection with its handshake."""

NATS_PORT: Final = 4222
"""The default port of a broker's URL."""

_LINE_MAX: Final = 1 << 20
"""Bytes of a server's first line."""


@dataclass(frozen=True, slots=True)
class WireFacts:
    """What the port at an address shows."""

    unreached: str = ""
    """Why there was no connection."""
    clear: bool = False
    """Whether the server sent its first line without TLS."""
    tls: str = ""
    """The version of TLS, as in ``TLSv1.3``; empty if there was no handshake."""
    tls_error: str = ""
    untrusted: str = ""
    """Why the certificate is not trusted."""
    valid_until: dt.datetime | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    """The server's words about itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker listens, and the authority that its certificate must have."""

    host: str
    port: int
    ca: Path | None = None

    @classmethod
    def of(cls, url: str, ca: Path | None) -> Place:
        """Read a URL; raises ``ValueError``."""
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if not parts.hostname:
            raise ValueError("a URL has a host")
        return cls(parts.hostname, parts.port or NATS_PORT, ca)


async def look(place: Place) -> WireFacts:
    """Look at a port, with three short connections."""
    try:
        clear = await _first_line(place)
    except (OSError, TimeoutError) as error:
        return WireFacts(unreached=_why(error))
    info = _parsed(clear)
    if clear and not (info.get("tls_required") or info.get("tls_available")):
        return WireFacts(clear=True, info=info)
    return await _look_at_tls(place, clear=bool(clear), info=info)


async def _look_at_tls(place: Place, *, clear: bool, info: dict[str, Any]) -> WireFacts:
    try:
        async with _handshake(place, _believing(), clear=clear) as (reader, writer):
            tls = writer.get_extra_info("ssl_object")
            version, until = tls.version(), _valid_until(tls.getpeercert(binary_form=True))
            info = info or _parsed(await _line(reader, STEP_S))
    except (OSError, TimeoutError, ValueError) as error:
        return WireFacts(clear=clear, tls_error=_why(error), info=info)
    return WireFacts(
        clear=clear,
        tls=version,
        untrusted=await _untrusted(place, clear=clear),
        valid_until=until,
        info=info,
    )


async def _untrusted(place: Place, *, clear: bool) -> str:
    """Return why the certificate is not trusted; empty if it is."""
    try:
        context = ssl.create_default_context(cafile=place.ca)
    except OSError:
        return "the file of the authority cannot be read"
    try:
        async with _handshake(place, context, clear=clear):
            return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message).rstrip(".")
    except (OSError, TimeoutError) as error:
        return _why(error)


async def _first_line(place: Place) -> bytes:
    """Return what a server says before the handshake; empty if it waits for the client."""
    async with _connected(place) as (reader, _):
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLEAR_S):
                first = await reader.read(1)  # any byte counts, also of a line without an end
            return first + await _line(reader, CLEAR_S)
    return b""


async def _line(reader: asyncio.StreamReader, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await reader.readline()
    except (TimeoutError, ConnectionError, ssl.SSLError, ValueError):
        return b""


@contextlib.asynccontextmanager
async def _connected(
    place: Place,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(STEP_S):
        reader, writer = await asyncio.open_connection(place.host, place.port, limit=_LINE_MAX)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def _handshake(
    place: Place, context: ssl.SSLContext, *, clear: bool
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect and begin TLS: after the server's first line if it sends one in clear."""
    async with _connected(place) as (reader, writer):
        async with asyncio.timeout(STEP_S):
            if clear:
                await reader.readline()
            await writer.start_tls(context, server_hostname=place.host)
        yield reader, writer


def _believing() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _valid_until(der: bytes | None) -> dt.datetime | None:
    return None if der is None else x509.load_der_x509_certificate(der).not_valid_after_utc


def _parsed(line: bytes) -> dict[str, Any]:
    word, _, rest = line.partition(b" ")
    try:
        found = json.loads(rest) if word == b"INFO" else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def _why(error: Exception) -> str:
    """Return a reason without any text of the peer."""
    match error:
        case TimeoutError():
            return f"no answer within {STEP_S:.0f} s"
        case ssl.SSLError():
            return (error.reason or "TLS failed").replace("_", " ").lower()
        case OSError() if error.errno and error.errno > 0:
            return os.strerror(error.errno)
        case OSError():
            return "the name does not resolve, or the connection was closed"
        case _:
            return "its answer has an unexpected form"
