"""Changes of the roster: a signer's endorsements, the next roster, and its distribution.

At a retirement the operator root signs two things: that the signer may not sign anything new, and
the endorsements, that is, the list of the signer's statements that still count. The list is
collected from all regions. A statement that no region reports is not on it and counts no more.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from kcm_runtime.files.atomic import place, placing
from kcm_schemas.roster import Instance, Operator, OperatorRole, Roster
from kcm_schemas.text import counted
from kcm_trust.endorsements import PAGE_BYTES, PAGES_MAX, Endorsements, pages
from kcm_trust.roster import entries, follows, name_of
from kcm_trust.verify import Untrusted

from kcm._internal.admin import Admin
from kcm._internal.client_context import ClientContext
from kcm.errors import ServiceError

LISTED_MAX: Final = PAGES_MAX * PAGE_BYTES // 32
"""Maximum statements on one list."""


T = TypeVar("T")

_SHORT: Final = re.compile(r"lift [0-9a-f]{1,32}")
"""A lift, named by the first digits of its hold's id."""


@dataclass(frozen=True, slots=True)
class Found:
    """A signer's statement, and the regions in which it is in force.

    ``time_ms`` is the time that the signer wrote into it, or 0. ``dark`` describes what stops
    counting if the statement is left out.
    """

    what: str
    digest: bytes
    time_ms: int
    regions: list[str] = field(default_factory=list)
    endorsed: bool = True
    dark: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """The statements that the regions reported, and why others did not reply."""

    found: list[Found]
    silent: dict[str, ServiceError]


class Refused(Exception):
    """The change of the roster is not allowed. The text gives the reason, ``hint`` what to do."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint: Final = hint


_STATEMENTS: Final = "--dry-run lists the statements, without --leave-out all of them"


Answered = Callable[[str], None]
"""Gets the name of each region that has replied or failed."""


def silent(_: str) -> None:
    """Ignore the progress."""


async def highest(
    admin: Admin, regions: Sequence[str], answered: Answered = silent
) -> tuple[bytes, Roster]:
    """Return the highest roster of the context, of those seen before, and of the regions' replies.

    All regions are asked at once. The roster is stored as seen. Raises ``Refused`` and
    ``ContextError``.
    """
    context = admin.context
    raw, known = context.highest()
    said = await each(regions, admin.roster, answered)
    for region, view in said.items():
        if isinstance(view, ServiceError):
            continue  # the caller decides whether it needs this region
        theirs = view.roster
        try:
            new = context.believe(theirs)
            if new.version < known.version:
                continue
            follows(known, new)
        except Untrusted as error:
            raise Refused(
                f"the roster of region {region} is not trusted: {error}",
                f"that region is of another system or was set back, or {context.path} has another "
                "`root_public`: ask the owner of the operator root",
            ) from None
        raw, known = theirs, new
    return context.seen(raw, known)


def lacked(context: ClientContext, known: Roster) -> list[str]:
    """Return the regions of active instances that the context does not have."""
    regions = {one.region for one in known.instances if one.retired is None}
    return sorted(regions - set(context.regions))


async def collect(
    admin: Admin, regions: Sequence[str], name: str, answered: Answered = silent
) -> Collected:
    """Ask all regions at once for the statements of a signer that are in force."""
    found: dict[bytes, Found] = {}
    failed: dict[str, ServiceError] = {}
    said = await each(regions, lambda region: admin.signed_by(region, name), answered)
    for region, entries_there in said.items():
        if isinstance(entries_there, ServiceError):
            failed[region] = entries_there
            continue
        for one in entries_there:
            known = found.setdefault(one.digest, Found(one.what, one.digest, one.time_ms))
            known.regions.append(region)
    return Collected(sorted(found.values(), key=lambda one: (one.what, one.digest)), failed)


async def each(
    regions: Sequence[str], ask: Callable[[str], Awaitable[T]], answered: Answered
) -> dict[str, T | ServiceError]:
    """Ask all regions at once; return the reply or the failure of each."""

    async def one(region: str) -> T | ServiceError:
        try:
            return await ask(region)
        except ServiceError as error:
            return error
        finally:
            answered(region)

    return dict(zip(regions, await asyncio.gather(*map(one, regions)), strict=True))


def choose(found: Iterable[Found], before_ms: int | None, left_out: Iterable[str]) -> list[Found]:
    """Mark the statements to leave out: those named, and those with ``before_ms`` or a later time.

    The id of a lift may be shortened. Raises ``Refused`` for a name that no statement has, or that
    several lifts have, because the statement that was meant would still count.
    """
    found = list(found)
    names = _named(frozenset(one.what for one in found), left_out)
    return [
        Found(
            one.what,
            one.digest,
            one.time_ms,
            one.regions,
            endorsed=one.what not in names and (before_ms is None or one.time_ms < before_ms),
        )
        for one in found
    ]


def _named(known: frozenset[str], left_out: Iterable[str]) -> frozenset[str]:
    """Return the names of the statements to leave out."""
    meant: set[str] = set()
    unknown: list[str] = []
    for name in sorted(set(left_out)):
        short = name.lower()
        found = [one for one in known if one == name]
        if not found and _SHORT.fullmatch(short):
            found = [one for one in known if one.startswith(short)]
        if len(found) > 1:
            raise Refused(
                f"several statements begin with {name!r}", f"give more digits; {_STATEMENTS}"
            )
        meant.update(found)
        if not found:
            unknown.append(name)
    if unknown:
        text = f"no statement to leave out is called {', '.join(map(repr, unknown))}"
        raise Refused(text, _STATEMENTS)
    return frozenset(meant)


def retire(known: Roster, name: str, endorsements: Endorsements, now_ms: int) -> Roster:
    """Return the next roster, in which a signer is retired; raises ``Refused``."""
    entry = next((one for one in entries(known) if name_of(one) == name), None)
    if entry is None:
        raise Refused(
            "the roster has no instance or operator of this name",
            "`kcm roster show` lists the names",
        )
    if entry.retired is not None:
        raise Refused(
            "is retired already, and the endorsements cannot be changed",
            "`kcm roster show` shows which regions have that roster",
        )
    if len(endorsements) > LISTED_MAX:
        text = f"more than {LISTED_MAX} statements would last"
        raise Refused(text, "let other operators sign some of them again first")
    said = endorsements.retirement()
    operators = [
        one.model_copy(update={"retired": said}) if one.operator == name else one
        for one in known.operators
    ]
    for role in OperatorRole:
        if not any(role in one.roles and one.retired is None for one in operators):
            raise Refused(
                f"no operator with role {role.value} would be left",
                "add one first: sign and put a roster that has another operator with this role",
            )
    return known.model_copy(
        update={
            "version": known.version + 1,
            "issued_ms": now_ms,
            "operators": operators,
            "instances": [
                one.model_copy(update={"retired": said}) if one.instance == name else one
                for one in known.instances
            ],
        }
    )


async def put_everywhere(
    admin: Admin, regions: Sequence[str], raw: bytes, lists: Mapping[str, Endorsements]
) -> dict[str, ServiceError | None]:
    """Send the endorsements, then the roster, to every region; return the failures by region."""
    results: dict[str, ServiceError | None] = {}
    for region in regions:
        try:
            for name, endorsements in lists.items():
                for page, digests in enumerate(pages(endorsements)):
                    await admin.put_endorsements(region, name, page, digests)
            await admin.put_roster(region, raw)
        except ServiceError as error:
            results[region] = error
        else:
            results[region] = None
    return results


def lists_directory(roster: Path) -> Path:
    """Return the directory of the endorsements beside a roster's file: one file per name."""
    return roster.with_name(f"{roster.name}.endorsements")


def read_lists(path: Path, roster: Roster) -> dict[str, Endorsements]:
    """Read the endorsements beside a roster's file; skip those that the roster does not name."""
    found = {}
    for one in entries(roster):
        if one.retired is None or not one.retired.count:
            continue
        try:
            raw = (lists_directory(path) / name_of(one)).read_bytes()
            found[name_of(one)] = Endorsements.read(raw, one.retired)
        except (OSError, ValueError):
            continue  # not an error: a region may have it already
    return found


def keep(context: ClientContext, raw: bytes, lists: Mapping[str, Endorsements]) -> None:
    """Replace the context's roster, after the endorsements; raises ``OSError``."""
    write(context.roster_path, raw, lists)


def write(path: Path, raw: bytes, lists: Mapping[str, Endorsements]) -> None:
    """Write a roster, signed or not, with the endorsements beside it; raises ``OSError``.

    If the roster cannot be written, nothing is. The roster is renamed to its name last. An error
    has that name.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with placing(path, private=False) as file:
        file.write(raw)
        file.flush()  # on a full disk, fail before the endorsements are written
        for name, endorsements in lists.items():
            directory = lists_directory(path)
            directory.mkdir(mode=0o700, exist_ok=True)
            place(directory / name, endorsements.raw(), private=False)


def lacking(known: Roster, new: Roster, lists: Mapping[str, Endorsements]) -> list[str]:
    """Return the newly retired signers whose endorsements are missing and could not count."""
    before = {name_of(one): one.retired for one in entries(known)}
    return sorted(
        name_of(one)
        for one in entries(new)
        if one.retired is not None
        and one.retired.count
        and name_of(one) not in lists
        and before.get(name_of(one)) != one.retired
    )


def differences(known: Roster, new: Roster) -> list[tuple[str, str]]:
    """Return the changes of a new roster, as names and texts, for a review before signing."""
    was = {name_of(one): one for one in entries(known)}
    now = {name_of(one): one for one in entries(new)}
    found = []
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            found += [(name, text) for text in _changes(was.get(name), now.get(name))]
    regions = {one.region: one for one in known.regions}, {one.region: one for one in new.regions}
    for name in sorted(regions[0].keys() | regions[1].keys()):
        one, other = regions[0].get(name), regions[1].get(name)
        if one != other:
            what = "is new" if one is None else "is GONE" if other is None else "has OTHER KEYS"
            found.append((f"region {name}", what))
    return found


def _changes(was: Instance | Operator | None, now: Instance | Operator | None) -> list[str]:
    if now is None:
        return ["REMOVED: no statement of this key counts any more, holds included"]
    if was is None:
        return [f"is new: {_what(now)}, key {now.public_key.hex()}"]
    found = []
    if was.public_key != now.public_key:
        found.append(f"KEY REPLACED by {now.public_key.hex()}")
    if _what(was) != _what(now):
        found.append(f"was {_what(was)}; is {_what(now)}")
    if was.retired != now.retired and now.retired is not None:
        count = counted(now.retired.count, "statement still counts", "statements still count")
        found.append(f"retired: {count}")
    return found


def _what(entry: Instance | Operator) -> str:
    if isinstance(entry, Operator):
        return f"operator with role {', '.join(role.value for role in entry.roles) or 'none'}"
    grants = ", ".join(f"{one.tenant}/{one.service}" for one in entry.grants) or "nothing"
    return f"{entry.role.value} in {entry.region}, granted {grants}"
