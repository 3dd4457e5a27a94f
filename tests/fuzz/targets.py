"""The readers of bytes from outside. Each either accepts them, or refuses them with its own error.

A target takes any bytes and returns; an exception is a finding. What is accepted has to be written
again to the same bytes: no two encodings mean the same.
"""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from kcm._internal import file_format
from kcm_auditor.journal.format import START, BadLine, Entry, Incident, IncidentKind, read, write
from kcm_broker import tokens
from kcm_broker.accounts import ScopeId, issue_user
from kcm_broker.claims import User
from kcm_broker.roles import Account, Role
from kcm_broker.tokens import TokenKind
from kcm_core.providers.uri import parse as parse_uri
from kcm_core.providers.uri_parts import L1UriError
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.nkeys import SEED_LENGTH, KeyKind, SigningKey
from kcm_schemas import data_subjects, limits, record, subjects
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.session import SealedAdmin, Ticket, decode_sealed_reply
from kcm_schemas.signed import Signed, read_signed
from kcm_schemas.vault import CoreRequest
from kcm_trust.verify import Untrusted

from tests.property.messages import models
from tests.unit.core_rig import Core, World
from tests.unit.trust_table import BELIEVED, believed

VECTORS: Final = Path(__file__).parents[1] / "vectors"
REFUSALS: Final = frozenset({Code.MALFORMED, Code.TOO_LARGE})

_MODELS: Final = models()
_SUBJECT: Final = data_subjects.core("eu", "core-eu", "unwrap", "acme", "crm")
_OPEN: Final = data_subjects.core_session("eu", "core-eu", "open")
_OPEN_OPERATOR: Final = data_subjects.core_session("eu", "core-eu", data_subjects.OPEN_OPERATOR)
_OPEN_APP: Final = data_subjects.core_session("eu", "core-eu", data_subjects.OPEN_APP)
_SIGNER: Final = SigningKey.generate(KeyKind.ACCOUNT)
_ORDER: Final = subjects.admin_at("eu", "link", "put", "core-eu")


@dataclass(frozen=True, slots=True)
class Target:
    """What is called with any bytes, and inputs with which the search begins."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def messages(data: bytes) -> None:
    """Every message of the wire: the first byte chooses which."""
    if data:
        _canonical(_MODELS[data[0] % len(_MODELS)], data[1:])


def envelopes(data: bytes) -> None:
    """Signed statements before any signature is checked, by the reader and by the codec."""
    try:
        by_shape = read_signed(data)
    except KcmError as error:
        assert error.code in REFUSALS, error
        by_codec = _canonical(Signed, data)
        assert by_codec is None, "the reader of envelopes refuses what the codec accepts"
        return
    assert by_shape == _canonical(Signed, data)


def statements(data: bytes) -> None:
    """The verification of every kind of statement: nothing else than ``Untrusted``."""
    for row in BELIEVED:
        with suppress(Untrusted):
            row.verify(data)


def records(data: bytes) -> None:
    """The header of a record."""
    try:
        header = record.parse(data)
    except KcmError as error:
        assert error.code is Code.MALFORMED, error
        return
    start = record.prefix(header.region, header.tenant, header.service, header.l3_version)
    assert record.build(start, header.wrapped, header.index) == header.raw
    assert data.startswith(header.raw)


def tickets(data: bytes) -> None:
    """What opens a session at a Core: bytes that no Gateway signed open none."""
    core = _core()
    known = len(core.sessions)
    _refused(core.sessions.handle(_OPEN, data))
    assert len(core.sessions) == known
    _canonical(Ticket, data)


def requests(data: bytes) -> None:
    """Requests to a Core without a session: refused, without an event in a Gateway's name."""
    core = _core()
    core.events.clear()
    _refused(core.wrapping.handle(_SUBJECT, data))
    assert not [kind for kind, _ in core.events if kind.startswith("keys.")]
    _canonical(CoreRequest, data)


def orders(data: bytes) -> None:
    """What operators send to one Core: nothing is served, opened or recorded in a name."""
    core = _core()
    core.events.clear()
    known = len(core.keys.operator_sessions)
    _refused(core.keys.begin(_OPEN_OPERATOR, data))
    _refused(core.sealed_admin.handle(_ORDER, data))
    assert len(core.keys.operator_sessions) == known
    assert not [kind for kind, _ in core.events if kind.startswith("admin.")]
    _canonical(SealedAdmin, data)


def applications(data: bytes) -> None:
    """What opens an application's session at a Core: bytes that no application signed open none."""
    core = _core()
    _refused(core.keys.begin(_OPEN_APP, data))


def logins(data: bytes) -> None:
    """What a client enters a broker with: its token, its credentials, and what signs both."""
    text = data.decode("utf-8", "replace")
    for attempt in (
        lambda: tokens.verify(text, TokenKind.USER, {_SIGNER.public}),
        lambda: tokens.verify(text, TokenKind.ACCOUNT, {_SIGNER.public}),
        lambda: SigningKey.from_seed(text),
    ):
        try:
            attempt()
        except KcmError as error:
            assert error.code in {*REFUSALS, Code.FORBIDDEN}, error
        else:
            assert len(text) == SEED_LENGTH, "no token of these bytes has a signature"
    try:
        found = credentials.from_text(text)
    except KcmError as error:
        assert error.code in REFUSALS, error
        return
    assert credentials.from_text(credentials.to_text(found)).token == found.token


def replies(data: bytes) -> None:
    """What a Gateway gets in place of a Core's reply."""
    with suppress(KcmError):
        decode_sealed_reply(data)


def uris(data: bytes) -> None:
    """References to customers' root keys."""
    with suppress(L1UriError):
        parse_uri(data.decode("utf-8", "replace"))


def journal(data: bytes) -> None:
    """A line of an Auditor's journal."""
    try:
        entry, _ = read(data)
    except BadLine:
        return
    assert write(entry)[0] == data


def files(data: bytes) -> None:
    """An encrypted file: header and frames."""
    source = io.BytesIO(data)
    try:
        head = file_format.header(file_format.read_header(source))
        pieces = list(file_format.records(source))
    except file_format.BrokenFileError:
        return
    assert head + b"".join(file_format.frame(piece.data) for piece in pieces) == data


def _canonical(model: type[Message], data: bytes) -> Message | None:
    try:
        message = decode(model, data)
    except KcmError as error:
        assert error.code in REFUSALS, error
        return None
    assert encode(message, limit=limits.BODY_MAX) == data
    return message


def _refused(call: object) -> None:
    try:
        _loop().run_until_complete(call)  # type: ignore[arg-type]
    except KcmError:
        return
    raise AssertionError("it was served")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kcm-fuzz-")


@cache
def _core() -> Core:
    """One Core for all inputs; its directory lasts as long as the process."""
    return World(Path(_directory().name)).core()


def _statements() -> Iterator[bytes]:
    yield from (encode(believed(row)) for row in BELIEVED)


def _vectors(name: str, *fields: str) -> Iterator[bytes]:
    """The values of these fields, which are hexadecimal, anywhere in a document of vectors."""
    document = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    yield from (bytes.fromhex(text) for text in _found(document, frozenset(fields)))


def _found(value: object, fields: frozenset[str]) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            if name in fields and isinstance(one, str):
                yield one
            else:
                yield from _found(one, fields)
    elif isinstance(value, list):
        for one in value:
            yield from _found(one, fields)


def _bodies() -> Iterator[bytes]:
    for row in BELIEVED:
        yield bytes((_MODELS.index(type(row.body)),)) + encode(row.body)
    for model, field in ((CoreRequest, "request"), (Ticket, "ticket")):
        for raw in _vectors("channel", field):
            yield bytes((_MODELS.index(model),)) + raw


def _uris() -> Iterator[bytes]:
    yield b"softkey:/keys/acme"
    yield b"awskms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    yield b"gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
    yield b"azurekv:https://vault.vault.azure.net/keys/k/0123456789abcdef0123456789abcdef"
    yield b"pkcs11:token=t;object=k;type=secret-key?module-path=/m.so&pin-source=file:/pin"


def _lines() -> Iterator[bytes]:
    incident = Incident(incident=IncidentKind.LOSS_ACCEPTED, region="eu", first=1, last=2)
    yield write(Entry(seq=1, previous=START.hex(), time_ms=1, content=incident))[0]


def _files() -> Iterator[bytes]:
    head = file_format.header(bytes(limits.ID_SIZE))
    yield head + file_format.frame(b"a record")
    yield head + file_format.frame(b"a") + file_format.frame(b"")


def _logins() -> Iterator[bytes]:
    scope = ScopeId(Role.APPLICATION, Account.REGION)
    key, account = SigningKey.generate(KeyKind.USER), SigningKey.generate(KeyKind.ACCOUNT)
    user = User(key.public, "shop", ("decrypt.acme.mail",))
    token = issue_user(account, scope, account.public, user, SystemClock())
    yield token.encode()
    yield key.seed().encode()
    yield credentials.to_text(Credentials(token, key)).encode()


TARGETS: Final = {
    "messages": Target(messages, _bodies),
    "envelopes": Target(envelopes, _statements),
    "statements": Target(statements, _statements),
    "records": Target(records, lambda: _vectors("records", "record")),
    "tickets": Target(tickets, lambda: _vectors("channel", "ticket")),
    "requests": Target(requests, lambda: _vectors("channel", "request")),
    "orders": Target(orders, _bodies),
    "applications": Target(applications, lambda: _vectors("channel", "ticket")),
    "logins": Target(logins, _logins),
    "replies": Target(replies, lambda: _vectors("channel", "reply", "refusal")),
    "uris": Target(uris, _uris),
    "journal": Target(journal, _lines),
    "files": Target(files, _files),
}
