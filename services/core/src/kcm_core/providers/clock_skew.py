"""Clock skew, which looks like wrong credentials because requests are signed with the time.

If a provider reports it, or the date of its answer differs much from the local time, the text names
the clock and the difference. That is a hint for people: it changes no state. A difference of a few
seconds is ignored, because an answer takes time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final

TOLERATED_S: Final = 5.0
"""Seconds of difference that are ignored: dates are whole seconds, and an answer takes time."""

ALONE_S: Final = 60.0
"""Seconds of difference that are named with rejected credentials, even without a report."""

REFUSED: Final = "the time is rejected: is this machine's clock right?"

_SAID: Final = re.compile(
    r"signature (?:expired|not yet current)|RequestTimeTooSkewed|not yet valid"
    r"|within its valid time range|check your iat|used too early",
    re.IGNORECASE,
)
"""The wording of AWS, TLS, Entra (AADSTS700024 and 500133), Google and its library."""


def told(
    detail: str, error: BaseException, *, of_credentials: bool, now: Callable[[], float] = time.time
) -> str:
    """Return ``detail``, with what an SDK's error says about this machine's clock.

    ``of_credentials`` says whether they were rejected; ``now`` returns seconds of Unix time.
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
    """Return the seconds by which this clock is ahead of the answer's date, or ``None``."""
    date = _date(error)
    if isinstance(date, str):
        with suppress(ValueError):
            return now - parsedate_to_datetime(date).timestamp()
    return None


def _date(error: Any) -> Any:
    """Return the answer's date: boto has a dictionary, Azure an object, gRPC pairs."""
    answer: Any = getattr(error, "response", None)
    with suppress(Exception):  # an answer of any shape: it is only a hint
        if isinstance(answer, dict):
            return answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        if hasattr(answer, "trailing_metadata"):
            pairs = [*(answer.initial_metadata() or ()), *(answer.trailing_metadata() or ())]
            return dict(pairs)["date"]
        return answer.headers["Date"] if answer is not None else None
    return None
