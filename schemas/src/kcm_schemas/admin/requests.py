"""The envelope of every operator's request and reply, and the parts that many of them share."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.codes import CodeField
from kcm_schemas.names import U64, Digest, Id, Name, Text

PageRows = Annotated[int, Field(ge=1, le=limits.PAGE_ROWS_MAX)]
"""The most rows that a page may have. It may have fewer; ``more`` says whether others follow."""


CLEAR: Final = frozenset({("hold", "put")})
"""Requests that go to any Core of a region, without a session: they carry a hold or a lift, whose
signed id makes every copy harmless."""


class AdminRequest(Message):
    """Body of a signed ``admin`` statement; ``payload`` is the message of that noun and verb.

    ``instance`` and ``incarnation`` are those of the one Core that may execute it. Both are
    ``None`` in a request of ``CLEAR``, and in one to an Auditor, which only reads.
    """

    region: Name
    noun: Name
    verb: Name
    instance: Name | None
    incarnation: Id | None
    request_id: Id
    deadline_ms: U64
    payload: bytes


class AdminReply(Message):
    """Body of a signed ``admin-reply`` statement, bound to the request that it answers."""

    request: Digest
    code: CodeField
    detail: Text
    payload: bytes


class Empty(Message):
    """A payload without content."""


class PutStatement(Message):
    """Carry a signed tenant, link, service, application, hold or lift to a region."""

    statement: bytes
