"""Applications as an operator changes them: the next entry, from those that the regions have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

from kcm_schemas.app import App, AppGrant, Verb
from kcm_schemas.codec import encode

from kcm._internal.arguments import BadValue

ALL_VERBS: Final[tuple[Verb, ...]] = ("decrypt", "encrypt")
"""The verbs of a grant that names none."""

NO_ENTRY: Final = bytes(32)
"""The ``previous`` of a first entry."""

DAY_MS: Final = 86_400_000


def first_entry(
    name: str,
    public_key: bytes,
    grants: Iterable[AppGrant],
    regions: Iterable[str],
    *,
    now_ms: int,
    days: int,
    plain: bool = False,
) -> App:
    """Return the first entry of an application, valid from now on for ``days``."""
    return App(
        app=name,
        revision=1,
        previous=NO_ENTRY,
        public_key=public_key,
        grants=in_order(grants),
        regions=sorted(set(regions)),
        not_before_ms=now_ms,
        not_after_ms=now_ms + days * DAY_MS,
        plain=plain,
        revoked=False,
    )


def newest_of(found: Mapping[str, App | None]) -> App | None:
    """Return the entry that counts most among those of the regions; ``None`` if none has one."""
    return max((one for one in found.values() if one is not None), key=_rank, default=None)


def changed(found: Mapping[str, App | None], newest: App, **changes: Any) -> App:
    """Return the entry with these changes, which every region of ``found`` can accept.

    It is ``newest`` itself if that has them already. If the regions differ, one revision is
    skipped: then a region replaces an entry that the new one does not name.
    """
    entry = App.model_validate(newest.model_dump() | changes)
    others = [one for one in found.values() if one not in (None, newest)]
    if entry == newest and all(one.revision < newest.revision for one in others if one):
        return newest
    step = 2 if others else 1
    following = {"revision": newest.revision + step, "previous": digest_of(newest)}
    return entry.model_copy(update=following)


def digest_of(entry: App) -> bytes:
    """Return the digest by which the next entry names this one."""
    return sha256(encode(entry)).digest()


def read_grant(text: str) -> AppGrant:
    """Read ``TENANT/SERVICE`` or ``TENANT/SERVICE:VERB,VERB``; raises ``BadValue``.

    ``*`` as the service is every service of the tenant.
    """
    place, colon, verbs = text.partition(":")
    tenant, slash, service = place.partition("/")
    try:
        if not slash:
            raise ValueError
        return AppGrant(
            tenant=tenant,
            service=service,
            verbs=sorted(set(verbs.split(","))) if colon else list(ALL_VERBS),  # type: ignore[arg-type]
        )
    except ValueError:
        raise BadValue(
            f"'{text[:160]}' is not a grant: use TENANT/SERVICE, TENANT/SERVICE:encrypt or "
            "TENANT/SERVICE:encrypt,decrypt",
            "grants",
        ) from None


def written(grant: AppGrant) -> str:
    """Return a grant as ``read_grant`` reads it."""
    place = f"{grant.tenant}/{grant.service}"
    return place if len(grant.verbs) == len(ALL_VERBS) else f"{place}:{','.join(grant.verbs)}"


def joined(grants: Iterable[AppGrant]) -> list[AppGrant]:
    """Return grants in order, with all verbs that several ones for the same service name."""
    verbs: dict[tuple[str, str], set[Verb]] = {}
    for one in grants:
        verbs.setdefault((one.tenant, one.service), set()).update(one.verbs)
    return [
        AppGrant(tenant=tenant, service=service, verbs=sorted(verbs[tenant, service]))
        for tenant, service in sorted(verbs)
    ]


def with_grants(known: Iterable[AppGrant], more: Iterable[AppGrant]) -> list[AppGrant]:
    """Return grants in order; a later one for the same service replaces an earlier one."""
    return in_order([*known, *more])


def without(known: Iterable[AppGrant], places: Iterable[str]) -> list[AppGrant]:
    """Return grants without those for ``places`` (``TENANT/SERVICE``).

    Raises ``BadValue`` for a place that has no grant.
    """
    left = {f"{one.tenant}/{one.service}": one for one in known}
    for place in places:
        if left.pop(place, None) is None:
            raise BadValue(f"the application has no grant for {place[:160]}", "grants")
    return in_order(left.values())


def in_order(grants: Iterable[AppGrant]) -> list[AppGrant]:
    """Return grants in the order of an entry, the last one for each service."""
    by_place = {(one.tenant, one.service): one for one in grants}
    return [by_place[place] for place in sorted(by_place)]


def _rank(entry: App) -> tuple[int, bytes]:
    return entry.revision, digest_of(entry)
