"""What is wrong with the fields of a configuration, for the person who writes the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kcm_schemas.names import NAME_FORM, NAME_PATTERN
from pydantic import ValidationError

SHOWN_MAX: Final = 80
"""Characters of a value that a text shows."""

_TEXTS: Final = {
    "string_type": "is not a text",
    "path_type": "is not a text",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_type": "is not a number",
    "float_parsing": "is not a number",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
    "tuple_type": "is not a list",
    "list_type": "is not a list",
    "dict_type": "is not a table",
    "model_type": "is not a table",
    "missing": "is missing",
    "extra_forbidden": "is not a field here",
    "string_pattern_mismatch": "does not have the form that this field needs",
    "literal_error": "is not {expected}",
    "enum": "is not {expected}",
    "greater_than_equal": "is less than {ge}",
    "less_than_equal": "is more than {le}",
    "greater_than": "is not more than {gt}",
    "less_than": "is not less than {lt}",
    "too_short": "has fewer entries than {min_length}",
    "too_long": "has more entries than {max_length}",
    "value_error": "{error}",
}
"""The text for each type of error, with the names of what pydantic says about it."""


def faults(error: ValidationError, *, values: bool = False) -> str:
    """Return a text for every wrong field: its place, and what it has to be.

    With ``values``, texts show what the file has there: it has no secrets.
    """
    items = error.errors(include_url=False)
    places = [item["loc"] for item in items]
    told = [
        _told(item, values=values)
        for item in items
        # A list whose only entry is wrong is also too short: one text is enough.
        if not any(len(one) > len(item["loc"]) and _begins(one, item["loc"]) for one in places)
    ]
    return "; ".join(told)


def place_of(steps: Sequence[str | int]) -> str:
    """Return a place in a file, as in ``regions.eu.servers[0]``."""
    text = ""
    for step in steps:
        if step != "[key]":
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _told(item: Mapping[str, Any], *, values: bool) -> str:
    place, value = place_of(item["loc"]), item["input"]
    shown = ""
    if values and isinstance(value, str | int | float) and item["type"] != "extra_forbidden":
        shown = f" {value!r:.{SHOWN_MAX}}"
    return f"{place}:{shown} {_text(item)}" if place else _text(item)


def _text(item: Mapping[str, Any]) -> str:
    context = item.get("ctx", {})
    if context.get("pattern") == NAME_PATTERN:
        return f"is not a name ({NAME_FORM})"
    text = _TEXTS.get(item["type"])
    return str(item["msg"]) if text is None else text.format(**context)


def _begins(place: Sequence[object], start: Sequence[object]) -> bool:
    return list(place[: len(start)]) == list(start)
