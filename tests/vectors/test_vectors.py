"""The vectors are what the code makes of fixed inputs, and two decoders read them alike."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from hashlib import shake_128
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from kcm_schemas import labels
from kcm_schemas.audit import AuditEvent
from kcm_schemas.auditor import StreamHead, Trim
from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Hold, Lift
from kcm_schemas.data import DecryptRequest
from kcm_schemas.labels import Label, ctx
from kcm_schemas.signed import read_signed
from kcm_sealing import xaes
from kcm_trust.envelopes import holds
from kcm_trust.verify import hold_id

from tests.vectors import decoder, generate, hpke_open, packed, product
from tests.vectors.packed import Refused

Case: TypeAlias = dict[str, Any]

MADE = generate.build()
LABELS = {value.name: value for value in vars(labels).values() if isinstance(value, Label)}


def cases(name: str, kind: str) -> list[Any]:
    rows = generate.load(name)[kind]
    return [pytest.param(row, id=row.get("name", str(at))) for at, row in enumerate(rows)]


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.failure


@pytest.mark.parametrize("name", MADE)
def test_files_are_what_the_generator_makes(name: str) -> None:
    assert generate.path(name).read_text(encoding="ascii") == generate.render(MADE[name])


def test_there_is_no_file_that_nobody_makes() -> None:
    assert {path.stem for path in generate.HERE.glob("*.json")} == set(MADE)


@pytest.mark.parametrize("module", [decoder, packed, hpke_open])
def test_the_second_decoder_is_independent(module: Any) -> None:
    allowed = {
        "cryptography",
        "tests.vectors.packed",
        "tests.vectors.hpke_open",
        *sys.stdlib_module_names,
    }
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        assert all(name in allowed or name.split(".")[0] in allowed for name in names), names


@pytest.mark.parametrize("case", cases("ctx", "valid"))
def test_ctx(case: Case) -> None:
    values: list[Any] = []
    encoded: list[bytes | str] = []
    for part in case["parts"]:
        value: Any = bytes.fromhex(part["value"]) if part["type"] == "bytes" else part["value"]
        values.append(value)
        match part["type"]:
            case "u32":
                value = decoder.u32(value)
            case "u64":
                value = decoder.u64(value)
        encoded.append(value)
    assert ctx(LABELS[case["label"]], *values).hex() == case["encoded"]
    assert decoder.ctx(case["label"], *encoded).hex() == case["encoded"]


def test_every_label_has_vectors() -> None:
    assert {case["label"] for case in generate.load("ctx")["valid"]} == set(LABELS)


@pytest.mark.parametrize("case", cases("xaes", "valid"))
def test_xaes(case: Case) -> None:
    key, nonce, plain, aad, sealed = (
        bytes.fromhex(case[name]) for name in ("key", "nonce", "plaintext", "aad", "sealed")
    )
    made = xaes.seal(product.locked(key), plain, aad, nonce, product.scratch())
    assert made == nonce + sealed
    assert decoder.xaes_open(key, nonce + sealed, aad) == plain
    out = memoryview(bytearray(len(plain)))
    xaes.open_into(product.locked(key), nonce + sealed, aad, out, product.scratch())
    assert out == plain
    assert decoder.xaes_key(key, nonce).hex() == case["derived_key"]


def test_xaes_accumulated() -> None:
    rounds = 10_000
    source = shake_128().digest(rounds * (32 + 24 + 1 + 255 + 1 + 255))
    sink, at, scratch = shake_128(), 0, product.scratch()

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return source[at - size : at]

    for _ in range(rounds):
        key, nonce = take(32), take(24)
        plain = take(take(1)[0])
        aad = take(take(1)[0])
        blob = xaes.seal(product.locked(key), plain, aad, nonce, scratch)
        out = memoryview(bytearray(len(plain)))
        xaes.open_into(product.locked(key), blob, aad, out, scratch)
        assert out == plain
        sink.update(blob[24:])
    expected = generate.load("xaes")["accumulated"][str(rounds)]
    assert sink.hexdigest(32) == expected


def _second_binding(case: Case) -> bytes:
    match case["layer"]:
        case "l2":
            key_id = bytes.fromhex(case["seal_key_id"])
            return decoder.l2_aad(case["tenant"], case["region"], case["l2_version"], key_id)
        case "l3":
            names = case["tenant"], case["region"], case["service"]
            return decoder.l3_aad(*names, case["l3_version"], case["l2_version"])
        case _:
            names = case["tenant"], case["region"], case["service"]
            return decoder.l4_aad(case["purpose"], *names, case["l3_version"])


def _wrap_inputs(case: Case) -> tuple[bytes, bytes]:
    return bytes.fromhex(case["kek"]), bytes.fromhex(case["wrapped"])


@pytest.mark.parametrize("case", cases("wrap", "valid"))
def test_wraps(case: Case) -> None:
    kek, blob = _wrap_inputs(case)
    assert product.unwrap(kek, blob, product.binding(case)).hex() == case["key"]
    assert decoder.unwrap(kek, blob, _second_binding(case)).hex() == case["key"]


@pytest.mark.parametrize("case", cases("wrap", "invalid"))
def test_wraps_that_are_refused(case: Case) -> None:
    kek, blob = _wrap_inputs(case)
    assert failure(lambda: product.unwrap(kek, blob, product.binding(case))) == case["failure"]
    assert failure(lambda: decoder.unwrap(kek, blob, _second_binding(case))) == case["failure"]


OPENERS = [product.open_record, decoder.open_record]


def _record_inputs(case: Case) -> tuple[bytes, bytes, tuple[str, str, str], dict[int, bytes]]:
    keys = generate.load("records")["service_keys"]
    region, tenant, service = case["asked"]
    return (
        bytes.fromhex(case["record"]),
        bytes.fromhex(case["context"]),
        (region, tenant, service),
        {int(version): bytes.fromhex(key) for version, key in keys.items()},
    )


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("case", cases("records", "valid"))
def test_records(case: Case, opener: Callable[..., bytes]) -> None:
    assert opener(*_record_inputs(case)).hex() == case["plaintext"]


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("case", cases("records", "invalid"))
def test_records_that_are_refused(case: Case, opener: Callable[..., bytes]) -> None:
    assert failure(lambda: opener(*_record_inputs(case))) == case["failure"]


@pytest.mark.parametrize("case", cases("codec", "valid"))
def test_codec(case: Case) -> None:
    body = bytes.fromhex(case["body"])
    fields = tuple(generate.load("codec")["fields"])
    message = packed.read_message(body, fields)
    assert dict(decode(DecryptRequest, body)) == message
    assert well_typed(message)


@pytest.mark.parametrize("case", cases("codec", "invalid"))
def test_codec_refuses(case: Case) -> None:
    body = bytes.fromhex(case["body"])
    with pytest.raises(KcmError) as caught:
        decode(DecryptRequest, body)
    assert caught.value.code.value == case["failure"]


def well_typed(message: dict[str, Any]) -> bool:
    columns = [message["records"], message["contexts"]]
    return (
        type(message["v"]) is type(message["deadline_ms"]) is int
        and message["v"] == 1
        and all(type(column) is list for column in columns)
        and all(type(item) is bytes for column in columns for item in column)
    )


SHAPES = {"true for one", "nil", "bytes as a string"}
"""Bodies that are canonical msgpack of a value that the message does not allow."""


@pytest.mark.parametrize("case", cases("codec", "invalid"))
def test_the_second_reader_refuses(case: Case) -> None:
    body = bytes.fromhex(case["body"])
    fields = tuple(generate.load("codec")["fields"])
    if case["name"] in SHAPES:
        assert not well_typed(packed.read_message(body, fields))
    else:
        assert failure(lambda: packed.read_message(body, fields)) == case["failure"]


@pytest.mark.parametrize("case", cases("signed", "valid"))
def test_signed(case: Case) -> None:
    raw, public = bytes.fromhex(case["statement"]), bytes.fromhex(case["public"])
    kind, signer, body = decoder.verify_statement(raw, public)
    statement = read_signed(raw)
    assert (statement.kind.value, statement.body) == (kind, body)
    assert holds(statement, signer, public)


@pytest.mark.parametrize("case", cases("signed", "invalid"))
def test_signed_refused(case: Case) -> None:
    raw, public = bytes.fromhex(case["statement"]), bytes.fromhex(case["public"])
    assert failure(lambda: decoder.verify_statement(raw, public)) == case["failure"]
    statement = read_signed(raw)
    assert not any(holds(statement, one.signer, public) for one in statement.signatures)


@pytest.mark.parametrize("case", cases("holds", "valid"))
def test_holds(case: Case) -> None:
    body = bytes.fromhex(case["body"])
    assert decoder.check_hold(body).hex() == case["id"]
    assert hold_id(decode(Hold, body)).hex() == case["id"]


@pytest.mark.parametrize("case", cases("holds", "invalid"))
def test_holds_refused(case: Case) -> None:
    body = bytes.fromhex(case["body"])
    assert failure(lambda: decoder.check_hold(body)) == case["failure"]
    hold = decode(Hold, body)
    assert hold_id(hold) != hold.id


def test_a_lift_embeds_its_hold() -> None:
    case = generate.load("holds")["lift"]
    lift = packed.read_message(bytes.fromhex(case["body"]), ("hold", "issued_ms", "reason"))
    kind, _, body = decoder.verify_statement(lift["hold"], bytes.fromhex(case["public"]))
    assert kind == "hold"
    assert decoder.check_hold(body) == decode(Hold, body).id
    assert dict(decode(Lift, bytes.fromhex(case["body"]))) == lift


def test_audit_chain() -> None:
    case = generate.load("audit")
    events = [bytes.fromhex(event) for event in case["events"]]
    for count, head in enumerate(case["heads"], 1):
        assert decoder.audit_head(events[:count]).hex() == head
    assert [decode(AuditEvent, event).count for event in events] == [0, 1, 2]


def test_audit_stream() -> None:
    case = generate.load("audit")["stream"]
    messages = [(row["subject"], bytes.fromhex(row["message"])) for row in case["messages"]]
    for count, row in enumerate(case["messages"], 1):
        assert decoder.stream_digest(messages[:count]).hex() == row["digest"]
    verified = {}
    for name in ("head", "trim"):
        row = case[name]
        verified[name] = decoder.verify_statement(
            bytes.fromhex(row["statement"]), bytes.fromhex(row["public"])
        )
    head = packed.read_message(
        verified["head"][2], ("auditor", "region", "created", "through", "digest", "time_ms")
    )
    trim = packed.read_message(
        verified["trim"][2], ("region", "created", "through", "digest", "issued_ms", "heads")
    )
    assert (verified["head"][0], verified["trim"][0]) == ("stream-head", "trim")
    assert head["digest"] == trim["digest"] == decoder.stream_digest(messages)
    assert trim["heads"] == [bytes.fromhex(case["head"]["statement"])]
    assert dict(decode(StreamHead, verified["head"][2])) == head
    assert dict(decode(Trim, verified["trim"][2])) == trim
