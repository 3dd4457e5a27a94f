"""The byte format between the Core, the fork server and its children.

A request is one SEQPACKET datagram, an answer one frame in a pipe: the same header of 12 bytes
(word, version, reserved, length of the meta, length of the payload, big-endian), then the payload,
then the meta in msgpack. The payload (a blob, a plaintext) is outside msgpack, so that it can be
read straight into memory of the reader's choice. The Core trusts no length and no text in an
answer: the process that wrote it ran a cloud's SDK or an HSM vendor's module.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import KcmError
from pydantic import Field

from kcm_core.providers.state import TEXT_MAX, L1State, safe_text
from kcm_core.providers.uri import URI_MAX

VERSION: Final = 1

PLAINTEXT_MAX: Final = 256
"""Bytes to wrap: a nested blob has 72, and RSA-4096 with OAEP-SHA-256 takes 446."""

BLOB_MAX: Final = 8192
"""Bytes of a blob that an L1 made of them: RSA-4096 gives 512, cloud services a few hundred."""

CONTEXT_MAX: Final = 4096
"""Bytes of context that is bound to a blob: the bound of every context."""

MECHANISM_MAX: Final = 32
"""Characters of a mechanism's name."""

DIGEST_SIZE: Final = 32
"""Bytes of a canary's SHA-256."""

DEADLINE_MAX_MS: Final = 60_000
"""Milliseconds for one operation: twice the default L1 lease, after which no caller waits."""

META_MAX: Final = URI_MAX * 4 + CONTEXT_MAX + 512
"""Bytes of meta: a URI (UTF-8), a context, and the field names."""

_HEADER: Final = struct.Struct(">BBHII")
HEADER_SIZE: Final = _HEADER.size
REQUEST_MAX: Final = HEADER_SIZE + BLOB_MAX + META_MAX
"""Bytes of a request: the size of the server's one buffer."""


class Operation(IntEnum):
    """The operations of a child; the server answers a ping itself."""

    PING = 0
    WRAP = 1
    UNWRAP = 2
    PROBE = 3
    INSPECT = 4


_STATES: Final = tuple(L1State)
"""The status in a frame's header is an index into these; `enabled` is first, so 0 is success."""


class FrameError(Exception):
    """Not a valid request, or not a valid answer. The text names the violated rule."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first bytes of a request (``word`` is an operation) or of an answer (a state)."""

    word: int
    meta_size: int
    payload_size: int

    def pack(self) -> bytes:
        """Return the 12 bytes."""
        return _HEADER.pack(self.word, VERSION, 0, self.meta_size, self.payload_size)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Header:
        """Read the 12 bytes; raises FrameError for values that ``pack`` never writes."""
        word, version, reserved, meta_size, payload_size = _HEADER.unpack(data)
        if version != VERSION or reserved or meta_size > META_MAX or payload_size > BLOB_MAX:
            raise FrameError("the header")
        return cls(word, meta_size, payload_size)


class Ask(Message):
    """The meta of a request."""

    uri: Annotated[str, Field(max_length=URI_MAX)] = ""
    context: Annotated[bytes, Field(max_length=CONTEXT_MAX)] = b""
    mechanism: Annotated[str, Field(max_length=MECHANISM_MAX)] = ""
    digest: Annotated[bytes, Field(max_length=DIGEST_SIZE)] = b""
    deadline_ms: Annotated[int, Field(ge=1, le=DEADLINE_MAX_MS)]


class Told(Message):
    """The meta of an answer."""

    mechanism: Annotated[str, Field(max_length=MECHANISM_MAX)] = ""
    key_version: Annotated[str, Field(max_length=TEXT_MAX)] = ""
    principal: Annotated[str, Field(max_length=TEXT_MAX)] = ""
    detail: Annotated[str, Field(max_length=TEXT_MAX)] = ""
    cls: Annotated[str, Field(max_length=TEXT_MAX)] = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``payload`` is a view of the buffer in which it arrived."""

    operation: Operation
    ask: Ask
    payload: memoryview


def request_parts(operation: Operation, ask: Ask, payload_size: int) -> tuple[bytes, bytes]:
    """Return header and meta of a request, to be sent around its payload; raises FrameError."""
    _check(operation, ask, payload_size)
    try:
        meta = encode(ask, limit=META_MAX)
    except KcmError:
        raise FrameError("the meta") from None
    return Header(operation, len(meta), payload_size).pack(), meta


def read_request(packet: memoryview) -> Request:
    """Parse a datagram; raises FrameError."""
    if len(packet) < HEADER_SIZE:
        raise FrameError("the length")
    header = Header.unpack(packet[:HEADER_SIZE])
    payload_end = HEADER_SIZE + header.payload_size
    if len(packet) != payload_end + header.meta_size:
        raise FrameError("the length")
    payload = packet[HEADER_SIZE:payload_end]
    try:
        operation = Operation(header.word)
        ask = decode(Ask, bytes(packet[payload_end:]), limit=META_MAX)
    except (ValueError, KcmError):
        raise FrameError("the operation or the meta") from None
    _check(operation, ask, len(payload))
    return Request(operation, ask, payload)


def _check(operation: Operation, ask: Ask, size: int) -> None:
    sized = {
        Operation.PING: size == 0,
        Operation.WRAP: 0 < size <= PLAINTEXT_MAX and not ask.mechanism,
        Operation.UNWRAP: 0 < size <= BLOB_MAX and bool(ask.mechanism),
        Operation.PROBE: 0 < size <= BLOB_MAX and bool(ask.mechanism),
        Operation.INSPECT: size == 0 and not ask.mechanism,
    }
    wanted = DIGEST_SIZE if operation is Operation.PROBE else 0
    if not sized[operation] or len(ask.digest) != wanted:
        raise FrameError("the payload, the mechanism or the digest")


def answer_parts(state: L1State, told: Told, payload_size: int) -> tuple[bytes, bytes]:
    """Return header and meta of an answer, to be written around its payload."""
    meta = encode(told, limit=META_MAX)
    return Header(_STATES.index(state), len(meta), payload_size).pack(), meta


def state_of(header: Header) -> L1State:
    """Return the state in an answer's header; raises FrameError."""
    if header.word >= len(_STATES):
        raise FrameError("the status")
    return _STATES[header.word]


def read_told(meta: bytes | bytearray) -> Told:
    """Decode an answer's meta, with its texts made safe to show; raises FrameError."""
    try:
        told = decode(Told, bytes(meta), limit=META_MAX)
    except KcmError:
        raise FrameError("the meta") from None
    return Told(**{name: safe_text(text) for name, text in told.__dict__.items()})
