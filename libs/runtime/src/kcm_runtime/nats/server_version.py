"""Refusal of NATS servers with a published vulnerability that matters to this system.

A server reports its own version, so this finds a forgotten server, not a hostile one.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from kcm_runtime.nats.stream_protection import Unfit

Version: TypeAlias = tuple[int, int, int]

VERSION_MIN: Final[Version] = (2, 14, 0)
"""Later versions have the fixes of NATS advisories 2026-16 (clients that reach a leaf node's port
may connect without a login) and 2026-18 (a queue can receive a denied subscription). Source:
https://advisories.nats.io"""

PATCHED: Final[Version] = (2, 12, 7)
"""The same fixes in the previous release line, and in no lower patch of that line."""

_VERSION: Final = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(-[0-9A-Za-z.-]{1,64})?(\+.*)?")


def check_version(said: object, *, allow_old: bool = False) -> str:
    """Return the warning for a server with this version; empty if it is new enough.

    Raises ``Unfit`` for an older one, unless ``allow_old``.
    """
    match = _VERSION.fullmatch(said) if isinstance(said, str) else None
    if match is None:
        fault = "the NATS server reports no valid version"
    else:
        major, minor, patch = (int(number) for number in match.groups()[:3])
        if new_enough((major, minor, patch), early=match[4] is not None):
            return ""
        version = f"{major}.{minor}.{patch}{match[4] or ''}"
        fault = f"the NATS server is {version}, with known vulnerabilities"
    if not allow_old:
        raise Unfit(
            f"{fault}: {LEAST} is needed; upgrade the server, or set allow_old_broker = true "
            "beside its url in the configuration to continue with a warning"
        )
    return f"{fault}: {LEAST} is needed; allow_old_broker lets it pass"


def new_enough(version: Version, *, early: bool = False) -> bool:
    """Whether a server may be used; ``early`` for a release candidate or another early build."""
    if version[:2] == PATCHED[:2]:
        return version > PATCHED or (version == PATCHED and not early)
    return version > VERSION_MIN or (version == VERSION_MIN and not early)


def _text(version: Version) -> str:
    return ".".join(map(str, version))


LEAST: Final = f"{_text(VERSION_MIN)} or later, or {_text(PATCHED)} or later of its line"
"""The required versions, in words."""
