"""Subjects of the servers' own APIs and of the service protocol, for the table of rights.

Each request to JetStream names its stream, so that a client of one stream reaches no other one.
"""

from __future__ import annotations

from typing import Final

from kcm_schemas import subjects

_API: Final = "$JS.API"

_MONITORING: Final = ("PING", "INFO", "STATS")

INFO: Final = f"{_API}.INFO"
"""Asks for the level of the API, and for the account's use of it."""

KEYS: Final = subjects.bucket_stream(subjects.KEYS_BUCKET)
REGISTRY: Final = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
RESULTS: Final = subjects.bucket_stream(subjects.RESULTS_BUCKET)

IN_REGION: Final = (subjects.CONTROL_STREAM, subjects.AUDIT_STREAM, REGISTRY, RESULTS)
"""The streams of the account ``region``."""

IN_VAULT: Final = (KEYS,)
"""The streams of the account ``vault``."""

ROOM: Final = "KCM_ROOM"
"""The temporary stream by which provisioning finds how large the audit stream can be
(``kcm_runtime.audit.stream_size``)."""

SYSTEM_UPDATE: Final = "$SYS.REQ.CLAIMS.UPDATE"
"""Where an account's token is pushed to every node."""


def system_lookup(account: str) -> str:
    """Where the nodes are asked for an account's token; ``account`` is its public key, or ``*``."""
    return f"$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP"


def info(stream: str) -> str:
    """Ask for a stream's configuration and state."""
    return f"{_API}.STREAM.INFO.{stream}"


def last(stream: str) -> str:
    """Ask the stream's leader for a message; the body of the request says which."""
    return f"{_API}.STREAM.MSG.GET.{stream}"


def purge(stream: str) -> str:
    """Delete messages of a stream."""
    return f"{_API}.STREAM.PURGE.{stream}"


def follow(stream: str, subject: str) -> tuple[str, ...]:
    """Ask for a stream's state, and create a named consumer that delivers ``subject``.

    The server compares stream and filter with the body of the request. Without a name it could not:
    a request for an unnamed consumer has another subject, and is refused.
    """
    return info(stream), f"{_API}.CONSUMER.CREATE.{stream}.*.{subject}"


def provision(streams: tuple[str, ...]) -> tuple[str, ...]:
    """Look at streams, create the missing ones, and add protection."""
    verbs = ("INFO", "CREATE", "UPDATE")
    room = ("CREATE", "DELETE") if subjects.AUDIT_STREAM in streams else ()
    return (
        INFO,
        *(f"{_API}.STREAM.{verb}.{stream}" for stream in streams for verb in verbs),
        *(f"{_API}.STREAM.{verb}.{ROOM}" for verb in room),
    )


def monitored(name: str) -> tuple[str, ...]:
    """The questions of the service protocol that an instance answers under this name."""
    rests = ("", f".{name}", f".{name}.*")
    return tuple(f"$SRV.{verb}{rest}" for verb in _MONITORING for rest in rests)


def monitoring() -> tuple[str, ...]:
    """Ask services of any name by the service protocol."""
    return tuple(f"$SRV.{verb}{rest}" for verb in _MONITORING for rest in ("", ".>"))
