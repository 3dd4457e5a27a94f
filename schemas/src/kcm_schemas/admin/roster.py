"""The roster in force, endorsements of retired signers, and the statements to endorse."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Digest, Name, Text


class RosterView(Message):
    """The roster in force at the answering Core, as it was signed.

    ``missing`` names the retired signers whose lists of endorsements this Core lacks.
    """

    instance: Name
    roster: bytes
    missing: list[Name]


class EndorsementsQuery(Message):
    """Ask for a page of a retired signer's endorsements; the roster says how many there are."""

    name: Name
    page: U32


class EndorsementsPage(Message):
    """A page of a retired signer's endorsements: it counts once a roster commits to the list."""

    name: Name
    page: U32
    digests: bytes


class SignedQuery(Message):
    """Ask for a signer's statements that can be endorsed; ``after`` is where the page begins."""

    name: Name
    after: Text


class SignedEntry(Message):
    """A statement that can be endorsed.

    ``what`` names it and gives the order. ``time_ms`` is the time in the statement, in Unix
    milliseconds, 0 if it has none.
    """

    what: Text
    digest: Digest
    time_ms: U64


class SignedPage(Message):
    """A signer's statements in order; ``more`` says whether others follow the last one."""

    entries: Annotated[list[SignedEntry], Field(max_length=1024)]
    more: bool
