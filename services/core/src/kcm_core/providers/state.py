"""One taxonomy for the answers of all L1 providers.

The kill switch depends on one distinction. *Refused* means an explicit denial by the key's owner or
provider: it causes a hold at once. Every other outcome, unknown exceptions included, is not an
explicit denial and never causes a hold: service ends with the key lease and resumes by itself.
``invalid`` (the answer does not authenticate) is of the second kind, and is an incident, too. So
the rule for adapters is: map explicit denials, and let everything else be ``unreachable``.
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
    """The L1 did not perform the operation.

    ``state`` is never ``enabled``. ``detail`` is a fixed text with hints, and ``cls`` the class
    name of the library's exception ("" if there was none): neither contains a library's message, an
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
    """Truncate text to ``TEXT_MAX`` characters of plain ASCII, safe for a log or a table.

    Names and versions come from the L1 and from the process that called it. Neither may write
    control characters to an operator's terminal.
    """
    return "".join(char if char in _SAFE else "?" for char in text[:TEXT_MAX])
