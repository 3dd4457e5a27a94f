"""Whether a stream is what was asked for: what the broker acknowledged, compared field by field.

A server changes what it is asked for without a word: a stream with delete markers may be purged and
rolled up, whatever else was asked; a field that an older server does not know is left out. And
whoever has the broker's password can change a stream later. So the acknowledged configuration
decides, at provisioning and at every start.

What takes away protection makes a stream unsafe, and nobody serves from it. Anything else that
differs is told in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Config = Mapping[str, Any]
"""A stream's configuration as the JetStream API writes it: durations in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that is not as it was asked for; ``unsafe`` when that takes away protection."""

    stream: str
    field: str
    unsafe: bool

    def __str__(self) -> str:
        """Name the stream and the field; values come from the broker and are not shown."""
        return f"{self.stream}: {self.field} {_MEANING.get(self.field, 'differs')}"


class Unfit(Exception):
    """The broker is not what was asked for, and waiting does not mend that."""


def unsafe(differences: list[Difference]) -> Unfit:
    """The error for differences of which at least one is unsafe: what, and what to do."""
    places = "; ".join(str(one) for one in differences if one.unsafe)
    return Unfit(
        f"the broker does not protect what it stores ({places}): provision the region again, "
        "which mends what can be mended; else restore the stream from its backup"
    )


def differences(
    wanted: Config, acknowledged: Config, copies: int | None = None
) -> list[Difference]:
    """Every field in which what was acknowledged is not what was asked for, by name.

    ``copies`` is how many replicas there have to be at least; ``None``: as many as wanted.
    """
    name = str(wanted["name"])
    asked = {**wanted, "num_replicas": wanted.get("num_replicas", 1) if copies is None else copies}
    fields = sorted({*asked, *acknowledged} - _OF_NO_EFFECT)
    found = []
    for field in fields:
        want, have = asked.get(field), acknowledged.get(field)
        rule = _RULES.get(field)
        if rule is not None and not rule(want, have):
            found.append(Difference(name, field, unsafe=True))
        elif _plain(field, want) != _plain(field, have) and field != "num_replicas":
            found.append(Difference(name, field, unsafe=False))
    return found


def mended(wanted: Config, acknowledged: Config) -> dict[str, Any]:
    """The acknowledged configuration with all protection that can be given back.

    Only what a server changes without losing a message: what is denied, and limits. Where a stream
    stores, what its subjects are and where it copies from stay as they are.
    """
    config = {key: value for key, value in acknowledged.items() if key not in _MENDABLE}
    config |= {key: wanted[key] for key in _MENDABLE if wanted.get(key) is not None}
    copies = (one.get("num_replicas", 1) for one in (wanted, acknowledged))
    return config | {"num_replicas": max(copies)}


def _same(want: Any, have: Any) -> bool:
    """Nothing else is as good."""
    return (want or None) == (have or None)


def _denied(want: Any, have: Any) -> bool:
    """What was to be denied is denied."""
    return bool(have) or not want


def _closed(want: Any, have: Any) -> bool:
    """What was not to be allowed is not allowed."""
    return bool(want) or not have


def _allowed(want: Any, have: Any) -> bool:
    """What was to be allowed is allowed."""
    return bool(have) or not want


def _room(want: Any, have: Any) -> bool:
    """The limit is not tighter. -1, 0 and nothing are no limit."""
    if _unlimited(have):
        return True
    return not _unlimited(want) and int(have) >= int(want)


def _enough(want: Any, have: Any) -> bool:
    """There are as many."""
    return int(have or 1) >= int(want or 1)


def _unlimited(limit: Any) -> bool:
    return limit is None or int(limit) <= 0


def _plain(field: str, value: Any) -> Any:
    """A value, where the API's many ways to say "no" or "no limit" are one."""
    if field in _LIMITS and _unlimited(value):
        return None
    return value or None


_LIMITS: Final = frozenset({"max_msgs", "max_bytes", "max_age", "max_msg_size", "max_consumers"})

_RULES: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "name": _same,
    "subjects": _same,
    "retention": _same,
    "storage": _same,
    "discard": _same,
    "max_msgs_per_subject": _same,
    "mirror": _same,
    "sources": _same,
    "subject_transform": _same,
    "republish": _same,
    "sealed": _same,
    "no_ack": _same,
    "allow_msg_counter": _same,
    # Acknowledged before it is on disk.
    "persist_mode": lambda want, have: (want or "default") == (have or "default"),
    "deny_delete": _denied,
    "deny_purge": _denied,
    "allow_rollup_hdrs": _closed,
    "subject_delete_marker_ttl": _closed,
    # For whoever may write a subject, expiry is no power that overwriting does not give: where it
    # is allowed in vain, that is told and no more. Where it is needed, it has to be there.
    "allow_msg_ttl": _allowed,
    "num_replicas": _enough,
    **dict.fromkeys(_LIMITS, _room),
}
"""By field, whether what is acknowledged (second) protects as what was asked for (first) does."""

_MENDABLE: Final = frozenset(
    {"deny_delete", "deny_purge", "allow_rollup_hdrs", "subject_delete_marker_ttl", "discard"}
    | {"republish"}
    | _LIMITS
)

_OF_NO_EFFECT: Final = frozenset(
    {
        "description",
        "metadata",
        "placement",
        "compression",
        "consumer_limits",
        "duplicate_window",
        "first_seq",
        "mirror_direct",
        "discard_new_per_subject",
    }
)
"""What protects nothing. No message bears an id by which duplicates would be dropped."""

_MEANING: Final = {
    "deny_purge": "is off, so it can be purged",
    "deny_delete": "is off, so messages can be deleted",
    "allow_rollup_hdrs": "is on, so one message can wipe the others",
    "subject_delete_marker_ttl": "is set, which allows purge and roll-up",
    "num_replicas": "is lower than the number of servers asks for",
    "max_age": "lets messages expire",
    "max_msgs": "is a limit that drops or refuses messages",
    "max_bytes": "is a limit that drops or refuses messages",
    "persist_mode": "acknowledges before it stores",
}
