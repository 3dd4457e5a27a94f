"""One taxonomy for what an L1 says, whatever its make.

The whole kill switch hangs on one distinction. *Refused* means that somebody who may decide said
no: it kills at once. Everything else, an exception nobody has seen before included, means that
nobody said no: it never kills, service ends with the lease and comes back by itself. ``invalid``
(the answer does not authenticate) is of the second kind and an incident on top. So the adapters'
rule is: name the refusals, and let the rest be ``unreachable``.
"""

from __future__ import annotations

import string
from typing import Final

from kcm_schemas.l1 import L1State

__all__ = ["TEXT_MAX", "L1Error", "L1State", "safe_text"]

TEXT_MAX: Final = 200
"""Characters of a detail, a version or a principal: a line in a log; an AWS role ARN fits."""

_SAFE: Final = frozenset(string.ascii_letters + string.digits + " _.,:;/@=+-()[]*'")


class L1Error(Exception):
    """The L1 did not do what was asked.

    ``state`` is never ``enabled``. ``detail`` is our own text with hints, ``cls`` the class name of
    the library's exception ("" where there was none): neither carries a library's message, an
    input, a path or key bytes.
    """

    def __init__(self, state: L1State, detail: str = "", *, cls: str = "") -> None:
        if state is L1State.ENABLED:
            raise ValueError("an enabled key is not an error")
        self.state = state
        self.detail = safe_text(detail)
        self.cls = safe_text(cls)
        super().__init__(state.value, self.detail, self.cls)

    def __str__(self) -> str:
        hint = f": {self.detail}" if self.detail else ""
        return f"{self.state.value}{hint}" + (f" ({self.cls})" if self.cls else "")


def safe_text(text: str) -> str:
    """Cut text to ``TEXT_MAX`` characters of plain ASCII, so that it is safe in a log or a table.

    Names and versions come from the L1 and from the process that talked to it: neither may write
    control characters to an operator's terminal.
    """
    return "".join(char if char in _SAFE else "?" for char in text[:TEXT_MAX])
