"""Which NATS servers are refused: those with a published weakness that touches what is done here.

A server says its version itself, so this finds the one that was forgotten, not the hostile one.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from kcm_runtime.nats.stream_protection import Unfit

Version: TypeAlias = tuple[int, int, int]

VERSION_MIN: Final[Version] = (2, 14, 0)
"""Later ones have the corrections of NATS advisories 2026-16 (who reaches a leaf node's port
may come in without a login) and 2026-18 (a denied subscription is given to a queue). Source:
https://advisories.nats.io"""

PATCHED: Final[Version] = (2, 12, 7)
"""The same corrections in the release line before, and no lower patch of that line."""

_VERSION: Final = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(-[0-9A-Za-z.-]{1,64})?(\+.*)?")


def check_version(said: object, *, allow_old: bool = False) -> str:
    """The warning for a server that says this version, empty for one that is new enough.

    Raises ``Unfit`` for one that is not, unless ``allow_old``.
    """
    match = _VERSION.fullmatch(said) if isinstance(said, str) else None
    if match is None:
        fault = "the NATS server does not say a version that can be read"
    else:
        major, minor, patch = (int(number) for number in match.groups()[:3])
        if new_enough((major, minor, patch), early=match[4] is not None):
            return ""
        fault = f"the NATS server is {major}.{minor}.{patch}{match[4] or ''}, with known weaknesses"
    if not allow_old:
        raise Unfit(
            f"{fault}: {LEAST} is needed; upgrade the server, or set allow_old_broker = true "
            "beside its url in the configuration to go on with a warning"
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
"""What is needed, in words."""
