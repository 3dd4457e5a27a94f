"""A clock that is minutes off looks like wrong credentials: requests are signed with the time.

Where a provider says so, or its answer has a date far from ours, the text names the clock and by
how much it is off. That is a hint to a person: it changes no state. An answer is as old as the way
that it took, so a few seconds are no difference.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final

TOLERATED_S: Final = 5.0
"""Seconds that are no difference: dates are whole seconds, and an answer has taken its time."""

ALONE_S: Final = 60.0
"""Seconds that are named beside refused credentials, also where nobody speaks of the time."""

REFUSED: Final = "the time is refused: is this machine's clock right?"

_SAID: Final = re.compile(
    r"signature (?:expired|not yet current)|RequestTimeTooSkewed|not yet valid"
    r"|within its valid time range|check your iat|used too early",
    re.IGNORECASE,
)
"""How AWS, TLS, Entra (AADSTS700024 and 500133), Google and its library word it."""


def told(
    detail: str, error: BaseException, *, of_credentials: bool, now: Callable[[], float] = time.time
) -> str:
    """``detail``, with what an SDK's error says about this machine's clock, if it does.

    ``of_credentials`` is whether they were refused; ``now`` has seconds of Unix time.
    """
    said = _SAID.search(str(error)) is not None
    ahead = _ahead(error, now())
    if ahead is None:
        if said:
            return REFUSED
        return detail
    if abs(ahead) <= TOLERATED_S or not (said or (of_credentials and abs(ahead) >= ALONE_S)):
        return detail
    where = "ahead of" if ahead > 0 else "behind"
    return f"{detail}; this machine's clock is {abs(ahead):.0f} s {where} the provider's"


def _ahead(error: BaseException, now: float) -> float | None:
    """Seconds by which this clock is ahead of the answer's date, where there is one."""
    date = _date(error)
    if isinstance(date, str):
        with suppress(ValueError):
            return now - parsedate_to_datetime(date).timestamp()
    return None


def _date(error: Any) -> Any:
    """The answer's date: boto keeps answers as dictionaries, Azure as objects, gRPC as pairs."""
    answer: Any = getattr(error, "response", None)
    with suppress(Exception):  # an answer of any shape: it is only a hint
        if isinstance(answer, dict):
            return answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        if hasattr(answer, "trailing_metadata"):
            pairs = [*(answer.initial_metadata() or ()), *(answer.trailing_metadata() or ())]
            return dict(pairs)["date"]
        return answer.headers["Date"] if answer is not None else None
    return None
