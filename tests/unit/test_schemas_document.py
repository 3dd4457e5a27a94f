"""``docs/wire-format.md`` says what the code does: fields in order, labels, codes, bounds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kcm_schemas import labels as context
from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.codes import RETRYABLE, Code
from kcm_schemas.labels import Label
from kcm_schemas.signed import Kind

from tests.property.messages import models

TEXT = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text(encoding="utf-8")
DOCUMENTED = dict(re.findall(r"^### (\w+)\n((?:`.+\n(?:.+\n)*)?)", TEXT, re.MULTILINE))
MODELS = {model.__name__: model for model in models()}

PAYLOADS = {"admin", "auditor"}
"""Modules and packages of payloads of admin requests: an operator's tool, not an interface."""


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    section = TEXT.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("name", [name for name, fields in DOCUMENTED.items() if fields])
def test_fields_stand_in_their_order(name: str) -> None:
    fields = re.findall(r"`(\w+)`", DOCUMENTED[name])
    assert fields == list(MODELS[name].model_fields)


def test_every_message_of_the_wire_is_documented() -> None:
    def outside(model: type[Message]) -> bool:
        return model.__module__.split(".")[1] in PAYLOADS

    expected = {name for name, model in MODELS.items() if not outside(model)}
    expected |= {"AdminRequest", "AdminReply", "AuditHead", "StreamHead", "Trim"}
    assert {name for name, fields in DOCUMENTED.items() if fields} == expected


def test_labels() -> None:
    labels = [value for value in vars(context).values() if isinstance(value, Label)]
    told = {
        name.strip("`"): [part.rsplit(" ", 1)[1] for part in parts.split(", ")]
        for name, parts in rows("## Context")
    }
    assert told == {label.name: [part.value for part in label.parts] for label in labels}


def test_codes() -> None:
    told = {name.strip("`"): retry for name, retry, _ in rows("## Error codes")}
    assert told == {code.value: "yes" if code in RETRYABLE else "no" for code in Code}


def test_kinds() -> None:
    told = [name.strip("`") for name, _, _ in rows("### Signed")]
    assert told == [kind.value for kind in Kind]


@pytest.mark.parametrize(
    "number",
    [
        limits.BODY_MAX,
        limits.RECORDS_MAX,
        limits.KEYS_MAX,
        limits.PREFIXES_MAX,
        limits.PREFIX_SIZE,
        limits.APP_CONTEXT_MAX,
        limits.DEADLINE_MAX_MS,
        limits.NAME_MAX,
        limits.TEXT_MAX,
        limits.ITEMS_MAX,
        limits.FIELDS_MAX,
        limits.SIGNED_HOLD_MAX,
        limits.AUDIT_EVENT_MAX,
        limits.AUDIT_EVENTS_MAX,
        limits.TRIM_HEADS_MAX,
        limits.STREAM_HEAD_MAX,
        limits.L1_BLOB_MAX,
        limits.HOLDS_MAX,
    ],
)
def test_bounds(number: int) -> None:
    assert re.search(rf"\b{number}\b", TEXT)


def test_vectors_are_listed() -> None:
    told = {name.strip("`") for name, _ in rows("## Test vectors")}
    folder = Path(__file__).parents[1] / "vectors"
    assert told == {path.name for path in folder.glob("*.json")}
