"""TOML for plain values, paths, tables and arrays of tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def to_toml(config: Mapping[str, Any]) -> str:
    """Return the text of a file."""
    return "".join(_table(config, ""))


def _table(table: Mapping[str, Any], name: str) -> list[str]:
    lines = [
        f"{key} = {_value(value)}\n"
        for key, value in table.items()
        if not isinstance(value, Mapping) and not _is_tables(value)
    ]
    for key, value in table.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, Mapping):
            lines += [f"\n[{path}]\n", *_table(value, path)]
        elif _is_tables(value):
            for one in value:
                lines += [f"\n[[{path}]]\n", *_table(one, path)]
    return lines


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _value(value: object) -> str:
    # JSON strings, numbers and booleans are valid TOML.
    return json.dumps(str(value) if isinstance(value, PurePath) else value)
