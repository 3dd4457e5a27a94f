"""The clock of a broker beside the clock of this machine."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from kcm_schemas import limits

from kcm_deployment.doctor.finding import Finding, bad, good, unknown

_FRACTION: Final = re.compile(r"\.(\d{1,6})\d*")
_FIX: Final = "set the clocks of both machines by a time service: `timedatectl set-ntp true`"


def check_clock(stamp: object, before_ms: int, after_ms: int) -> Finding:
    """Compare the time in a broker's answer with the times of asking and of the answer."""
    said = _unix_ms(stamp)
    if said is None:
        return no_time()
    off = max(before_ms - said, said - after_ms, 0)
    if off > limits.SKEW_MS:
        text = f"the broker's clock differs by {off / 1000:.1f} s"
        return bad("clock", f"{text}; {limits.SKEW_MS // 1000} s are allowed", _FIX)
    return good("clock", "the broker's clock and this one agree")


def no_time() -> Finding:
    """Return the finding about a login that cannot see the broker's time."""
    text = "this login does not see the broker's time"
    return unknown("clock", text, "look at `timedatectl` on both machines")


def _unix_ms(stamp: object) -> int | None:
    if not isinstance(stamp, str):
        return None
    try:
        # The server writes nanoseconds, and Python reads microseconds at most.
        read = dt.datetime.fromisoformat(_FRACTION.sub(r".\1", stamp, count=1))
    except ValueError:
        return None
    return None if read.tzinfo is None else int(read.timestamp() * 1000)
