"""What a broker must refuse to every client of the system, tried at the broker itself.

The streams and consumers that are named do not exist, so a broker without permissions loses
nothing. Only what is refused counts: the text of a configuration proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kcm_broker.roles import Role
from kcm_schemas import subjects

from kcm_deployment.doctor.finding import Finding, bad, good, unknown

ABSENT: Final = "kcm-doctor-none"
"""The name of a stream and of a consumer that no system has."""

_FIX: Final = (
    "give the server the users of `python -m kcm_broker users REGION`, or credentials of this role"
)


class Verb(StrEnum):
    """What a client asks of the broker."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


class Answer(StrEnum):
    """What the broker did."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    SILENT = "silent"
    """The broker did not answer in time."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that no client may do, and what it would give."""

    check: str
    verb: Verb
    subject: str
    gives: str

    def said_in(self, error: str) -> bool:
        """Whether an error of the broker refuses this."""
        text = error.lower()
        return "permissions violation" in text and f'"{self.subject.lower()}"' in text


def attempts(role: Role | None) -> tuple[Attempt, ...]:
    """Return what to try as a client of this role; no role has a right to any of it."""
    other = Role.CORE if role is Role.OPERATOR else Role.OPERATOR
    follow = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.CONTROL_STREAM}.{ABSENT}"
    delete = f"$JS.API.STREAM.DELETE.{ABSENT}"
    return (
        Attempt("subscribe-all", Verb.SUBSCRIBE, ">", "read all messages"),
        Attempt(
            "foreign-inbox",
            Verb.SUBSCRIBE,
            f"_INBOX.{other}.>",
            f"read the replies of role {other}",
        ),
        Attempt("delete-stream", Verb.PUBLISH, delete, "delete streams"),
        Attempt("pull-messages", Verb.PUBLISH, follow, "delete streams by a reply subject"),
        Attempt("ask-servers", Verb.PUBLISH, "$SYS.REQ.SERVER.PING", "ask the servers' account"),
    )


def judge(attempt: Attempt, answer: Answer) -> Finding:
    """Return the finding about one attempt."""
    if answer is Answer.REFUSED:
        return good(attempt.check, f"the broker refuses to {attempt.verb} {attempt.subject}")
    if answer is Answer.SILENT:
        text = f"the broker did not answer when asked to {attempt.verb} {attempt.subject}"
        return unknown(attempt.check, text, "check again when the broker answers in time")
    text = f"the broker accepts to {attempt.verb} {attempt.subject}: this login may {attempt.gives}"
    return bad(attempt.check, text, _FIX)
