"""Comparison of a stream's acknowledged configuration with the requested one, field by field.

A server changes a request without notice: a stream with delete markers may be purged and rolled up,
whatever else was requested; a field that an older server does not know is dropped. An attacker with
the broker's password can change a stream later. So the acknowledged configuration decides, at
provisioning and at every start.

A difference that takes away protection makes a stream unsafe, and no component uses it. All other
differences are logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Config = Mapping[str, Any]
"""A stream's configuration in the form of the JetStream API: durations in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that is not as requested; ``unsafe`` if that takes away protection."""

    stream: str
    field: str
    unsafe: bool

    def __str__(self) -> str:
        """Name the stream and the field; the broker's values are not shown."""
        return f"{self.stream}: {self.field} {_MEANING.get(self.field, 'differs')}"


class Unfit(Exception):
    """The broker does not meet a requirement, and waiting does not change that."""


def unsafe(differences: list[Difference]) -> Unfit:
    """Return the error for differences of which at least one is unsafe, with the remedy."""
    places = "; ".join(str(one) for one in differences if one.unsafe)
    return Unfit(
        f"the broker does not protect what it stores ({places}): provision the region again, "
        "which repairs what can be repaired; otherwise restore the stream from its backup"
    )


def differences(
    wanted: Config, acknowledged: Config, copies: int | None = None
) -> list[Difference]:
    """Return every field in which the acknowledged configuration is not the wanted one, by name.

    ``copies`` is the least number of replicas; ``None`` means as many as wanted.
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
    """Return the acknowledged configuration with all protection that can be restored.

    Only changes that a server makes without losing a message: denied operations, and limits. The
    storage of a stream, its subjects and its sources are not changed.
    """
    config = {key: value for key, value in acknowledged.items() if key not in _MENDABLE}
    config |= {key: wanted[key] for key in _MENDABLE if wanted.get(key) is not None}
    copies = (one.get("num_replicas", 1) for one in (wanted, acknowledged))
    return config | {"num_replicas": max(copies)}


def _same(want: Any, have: Any) -> bool:
    """Only the wanted value is safe."""
    return (want or None) == (have or None)


def _denied(want: Any, have: Any) -> bool:
    """Whether an operation that must be denied is denied."""
    return bool(have) or not want


def _closed(want: Any, have: Any) -> bool:
    """Whether a feature that must be off is off."""
    return bool(want) or not have


def _allowed(want: Any, have: Any) -> bool:
    """Whether a feature that must be on is on."""
    return bool(have) or not want


def _room(want: Any, have: Any) -> bool:
    """Whether the limit is not tighter. -1, 0 and absence mean no limit."""
    if _unlimited(have):
        return True
    return not _unlimited(want) and int(have) >= int(want)


def _enough(want: Any, have: Any) -> bool:
    """Whether there are as many."""
    return int(have or 1) >= int(want or 1)


def _unlimited(limit: Any) -> bool:
    return limit is None or int(limit) <= 0


def _plain(field: str, value: Any) -> Any:
    """Return a value with the API's ways to say "no" or "no limit" unified."""
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
    # Acknowledges before the message is on disk.
    "persist_mode": lambda want, have: (want or "default") == (have or "default"),
    "deny_delete": _denied,
    "deny_purge": _denied,
    "allow_rollup_hdrs": _closed,
    "subject_delete_marker_ttl": _closed,
    # For a client that may write a subject, expiry gives no power that overwriting does not give.
    # Where it is allowed without need, that is only logged; where it is needed, it must be allowed.
    "allow_msg_ttl": _allowed,
    "num_replicas": _enough,
    **dict.fromkeys(_LIMITS, _room),
}
"""By field, whether the acknowledged value (second) protects as well as the wanted one (first)."""

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
"""Fields without effect on protection. No message has an id by which duplicates are dropped."""

_MEANING: Final = {
    "deny_purge": "is off, so it can be purged",
    "deny_delete": "is off, so messages can be deleted",
    "allow_rollup_hdrs": "is on, so one message can wipe the others",
    "subject_delete_marker_ttl": "is set, which allows purge and roll-up",
    "num_replicas": "is lower than the number of servers requires",
    "max_age": "lets messages expire",
    "max_msgs": "is a limit that drops or refuses messages",
    "max_bytes": "is a limit that drops or refuses messages",
    "persist_mode": "acknowledges before it stores",
}
