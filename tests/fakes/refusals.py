"""Refusals without a seal or a signature, as any client of the broker can send them."""

from __future__ import annotations

from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.data import Failure


def failure(code: Code, detail: str = "") -> bytes:
    """A plain refusal."""
    return encode(Failure(v=1, error=code, detail=detail))
