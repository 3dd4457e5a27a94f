"""The Core's own credentials for a cloud: whatever is wrong with them, nobody said no to a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from kcm_core.providers import clock_skew
from kcm_core.providers.state import L1Error, L1State

NO_CREDENTIALS: Final = (L1State.UNREACHABLE, "the credentials are missing, expired or wrong")


def _class(error: Exception) -> str:
    return type(error).__name__


@contextmanager
def fetching(named: Callable[[Exception], str] = _class) -> Iterator[None]:
    """Surround their fetching, apart from any use of a key.

    Raises ``L1Error`` (unreachable) in place of any exception; ``named`` is what it is called.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - also what an SDK did not mean to raise
        state, detail = NO_CREDENTIALS
        detail = clock_skew.told(detail, error, of_credentials=True)
        raise L1Error(state, detail, cls=named(error)) from None
