r"""How a field of a JSON object is named: ``user.name`` is the key ``name`` in the object ``user``.

A dot that belongs to a key is written ``\.``, a backslash ``\\``, so that a name says one path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kcm.cli.error_report import Problem
from kcm.exit_codes import Exit

Path = tuple[str, ...]
"""Keys from the outermost object to the field."""

_KEY: Final = re.compile(r"(?:[^.\\]|\\[.\\])+")
_ESCAPED: Final = re.compile(r"\\(.)")


def parse(field: str) -> Path:
    """The keys that a field's name stands for; raises ``Problem``."""
    keys, at = [], 0
    while found := _KEY.match(field, at):
        keys.append(_ESCAPED.sub(r"\1", found[0]))
        at = found.end()
        if at == len(field):
            return tuple(keys)
        if field[at] != ".":
            break
        at += 1
    raise Problem(
        Exit.USAGE,
        "usage",
        f"{field} does not name a field of a JSON object",
        r"user.name is a key in an object; a dot of a key is written \. and a backslash \\",
    )


def refuse_overlaps(paths: Sequence[Path]) -> None:
    """Raise when one field is a part of another one."""
    for one in paths:
        for other in paths:
            if one != other and other[: len(one)] == one:
                text = f"the field {'.'.join(other)} is a part of the field {'.'.join(one)}"
                raise Problem(Exit.USAGE, "usage", text, "name one of the two")
