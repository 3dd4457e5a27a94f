"""The application contexts of a call: the end of each record's associated data."""

from __future__ import annotations

from collections.abc import Sequence

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.labels import record_aad_end
from kcm_schemas.text import counted


def aad_ends(contexts: Sequence[bytes] | bytes | None, count: int) -> Sequence[bytes]:
    """Return the end of each record's associated data; raises ``malformed`` or ``too_large``."""
    if contexts is None or isinstance(contexts, bytes):
        return _ends([contexts or b""]) * count
    if len(contexts) != count:
        raise KcmError(
            Code.MALFORMED,
            f"{counted(len(contexts), 'context')} for {counted(count, 'record')}: give bytes for "
            "all, or one for each",
        )
    return _ends(contexts)


def _ends(contexts: Sequence[bytes]) -> list[bytes]:
    if any(len(one) > limits.APP_CONTEXT_MAX for one in contexts):
        raise KcmError(
            Code.TOO_LARGE, f"an application context has at most {limits.APP_CONTEXT_MAX} bytes"
        )
    return [record_aad_end(one) for one in contexts]
