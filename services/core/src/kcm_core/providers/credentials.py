"""The Core's own credentials for a cloud: a problem with them is no denial of a key."""

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
    """Bracket the fetching of credentials, separately from any use of a key.

    Raises ``L1Error`` (unreachable) for every exception; ``named`` returns the class to report.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - also unintended exceptions of an SDK
        state, detail = NO_CREDENTIALS
        detail = clock_skew.told(detail, error, of_credentials=True)
        raise L1Error(state, detail, cls=named(error)) from None
