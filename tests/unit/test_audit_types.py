"""The record's types are those that its page documents, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from kcm_schemas.audit import EventType

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


def test_the_page_has_every_type_and_no_other() -> None:
    table = PAGE.read_text().split("## Events")[1].split("## Incidents")[0]
    told = set(re.findall(r"^\| `([a-z.<>-]+)` \|", table, re.MULTILINE))
    admin = {one.value for one in EventType if one.value.startswith("admin.")}
    others = {one.value for one in EventType} - admin
    assert told == others | {"admin.<noun>-<verb>", "admin.unknown"}
