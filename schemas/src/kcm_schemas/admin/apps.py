"""Applications and their grants."""

from __future__ import annotations

from kcm_schemas.admin.requests import PageRows
from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Cursor, Name
from kcm_schemas.roster import PublicKey


class AppQuery(Message):
    """Ask for one application."""

    app: Name


class AppView(Message):
    """An application: ``entry`` is the ``RegistryEntry`` that counts, as an operator signed it.

    ``forked`` says that several entries have this revision: the application is refused until an
    operator signs a higher one. ``held`` says that a hold keeps its key out of service.
    """

    app: Name
    region: Name
    entry: bytes
    forked: bool
    held: bool


class AppListQuery(Message):
    """Ask for a page of a region's applications, by name, from the first one after ``after``."""

    after: Cursor
    limit: PageRows


class AppRow(Message):
    """An application without its grants; ``grants`` is their number. Times as in an ``App``."""

    app: Name
    region: Name
    revision: U64
    public_key: PublicKey
    grants: U32
    regions: list[Name]
    not_before_ms: U64
    not_after_ms: U64
    plain: bool
    revoked: bool
    forked: bool
    held: bool


class AppPage(Message):
    """Applications of a region, ordered by name; ``total`` counts all of them."""

    apps: list[AppRow]
    total: U32
    more: bool
