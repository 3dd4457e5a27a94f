"""Calls that are refused."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest
from kcm_schemas.codes import Code, KcmError


async def refusal(call: Awaitable[object]) -> KcmError:
    """The error with which a call ends."""
    with pytest.raises(KcmError) as info:
        await call
    return info.value


async def refused(call: Awaitable[object]) -> Code:
    """The code of that error."""
    return (await refusal(call)).code
