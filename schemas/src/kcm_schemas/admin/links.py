"""Links to customers' root keys."""

from __future__ import annotations

from kcm_schemas.admin.requests import PageRows
from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Cursor, Name, Text


class LinkView(Message):
    """A customer's key as a Core of a region found it when it tested and registered the link.

    ``ms`` is how long one unwrap took there, in milliseconds.
    """

    link: Name
    region: Name
    mechanism: Text
    key_version: Text
    principal: Text
    ms: U32


class LinkListQuery(Message):
    """Ask for a page of a region's links, ordered by name, from the first one after ``after``."""

    after: Cursor
    limit: PageRows


class LinkRow(Message):
    """A link as an operator signed it; ``tenants`` is how many tenants of the region use it."""

    link: Name
    region: Name
    revision: U64
    uri: Text
    model: Text
    tenants: U32


class LinkPage(Message):
    """Links of a region, ordered by name; ``total`` counts all of them."""

    links: list[LinkRow]
    total: U32
    more: bool
