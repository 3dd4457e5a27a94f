"""Changing the roster: what lasts of somebody who leaves, the next roster, and bringing it about.

The root signs two things at a retirement: that somebody acts no more, and the list of those of
their statements that go on counting. The list is collected from every region; what a region does
not say is not on it, and goes dark there.
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
from kcm_trust.endorsements import PAGE_BYTES, PAGES_MAX, Endorsements, pages
from kcm_trust.roster import entries, follows, name_of
from kcm_trust.verify import Untrusted

from kcm._internal.admin import Admin
from kcm._internal.client_context import ClientContext
from kcm.errors import ServiceError

LISTED_MAX: Final = PAGES_MAX * PAGE_BYTES // 32
"""Statements on one list."""


T = TypeVar("T")

_SHORT: Final = re.compile(r"lift [0-9a-f]{1,32}")
"""A lift by the first digits of its hold's id."""


@dataclass(frozen=True, slots=True)
class Found:
    """A statement of somebody, and the regions that have it in force.

    ``time_ms`` is when it was signed by its own word, 0 where it does not say; ``dark`` what goes
    dark when it is left out.
    """

    what: str
    digest: bytes
    time_ms: int
    regions: list[str] = field(default_factory=list)
    lasts: bool = True
    dark: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """What the regions said, and those that did not answer, with the reason."""

    found: list[Found]
    silent: dict[str, ServiceError]


class Refused(Exception):
    """The roster cannot be changed in this way; the text says why."""


Answered = Callable[[str], None]
"""Is told of each region that has answered, or failed to."""


def silent(_: str) -> None:
    """Nobody wants to know."""


async def highest(
    admin: Admin, regions: Sequence[str], answered: Answered = silent
) -> tuple[bytes, Roster]:
    """The highest roster of the file, of what was seen, and of the regions that answer.

    The regions are asked at once. It is kept as seen. Raises ``Refused`` and ``ContextError``.
    """
    context = admin.context
    raw, known = context.highest()
    said = await each(regions, admin.roster, answered)
    for region, view in said.items():
        if isinstance(view, ServiceError):
            continue  # whether it has to answer is decided when it is asked what it has
        theirs = view.roster
        try:
            new = context.believe(theirs)
            if new.version < known.version:
                continue
            follows(known, new)
        except Untrusted as error:
            raise Refused(f"the roster of region {region} is not believed: {error}") from None
        raw, known = theirs, new
    return context.seen(raw, known)


def lacked(context: ClientContext, known: Roster) -> list[str]:
    """Regions where somebody on the roster acts, and that the context does not have."""
    regions = {one.region for one in known.instances if one.retired is None}
    return sorted(regions - set(context.regions))


async def collect(
    admin: Admin, regions: Sequence[str], name: str, answered: Answered = silent
) -> Collected:
    """Ask every region at once what it has in force of somebody."""
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
    """What each region says, asked at once; a region's failure is its answer."""

    async def one(region: str) -> T | ServiceError:
        try:
            return await ask(region)
        except ServiceError as error:
            return error
        finally:
            answered(region)

    return dict(zip(regions, await asyncio.gather(*map(one, regions)), strict=True))


def choose(found: Iterable[Found], before_ms: int | None, left_out: Iterable[str]) -> list[Found]:
    """Mark what is left out: what was signed at ``before_ms`` or later, and what is named.

    The id of a lift may be shortened. Raises ``Refused`` for a name that no statement has, and for
    one that several have: left out in vain, it would last.
    """
    found = list(found)
    names = _named(frozenset(one.what for one in found), left_out)
    return [
        Found(
            one.what,
            one.digest,
            one.time_ms,
            one.regions,
            lasts=one.what not in names and (before_ms is None or one.time_ms < before_ms),
        )
        for one in found
    ]


def _named(known: frozenset[str], left_out: Iterable[str]) -> frozenset[str]:
    """The statements that are meant."""
    meant: set[str] = set()
    unknown: list[str] = []
    for name in sorted(set(left_out)):
        short = name.lower()
        found = [one for one in known if one == name]
        if not found and _SHORT.fullmatch(short):
            found = [one for one in known if one.startswith(short)]
        if len(found) > 1:
            raise Refused(f"several statements begin with {name!r}: give more digits")
        meant.update(found)
        if not found:
            unknown.append(name)
    if unknown:
        raise Refused(f"no statement to leave out is called {', '.join(map(repr, unknown))}")
    return frozenset(meant)


def retire(known: Roster, name: str, lasting: Endorsements, now_ms: int) -> Roster:
    """The next roster, in which somebody is retired; raises ``Refused``."""
    entry = next((one for one in entries(known) if name_of(one) == name), None)
    if entry is None:
        raise Refused("nobody on the roster has this name")
    if entry.retired is not None:
        raise Refused("is retired already, and what lasts cannot be changed any more")
    if len(lasting) > LISTED_MAX:
        raise Refused(f"more than {LISTED_MAX} statements would last: have others sign them again")
    said = lasting.retirement()
    operators = [
        one.model_copy(update={"retired": said}) if one.operator == name else one
        for one in known.operators
    ]
    for role in OperatorRole:
        if not any(role in one.roles and one.retired is None for one in operators):
            raise Refused(f"nobody with role {role.value} would be left: add an operator first")
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
    """Give every region the lists, then the roster; for each, how it failed."""
    results: dict[str, ServiceError | None] = {}
    for region in regions:
        try:
            for name, lasting in lists.items():
                for page, digests in enumerate(pages(lasting)):
                    await admin.put_lasting(region, name, page, digests)
            await admin.put_roster(region, raw)
        except ServiceError as error:
            results[region] = error
        else:
            results[region] = None
    return results


def lists_directory(roster: Path) -> Path:
    """Where the lists lie beside a roster's file, one file for each name."""
    return roster.with_name(f"{roster.name}.lasting")


def read_lists(path: Path, roster: Roster) -> dict[str, Endorsements]:
    """The lists beside a roster's file, as far as they are the ones that it names."""
    found = {}
    for one in entries(roster):
        if one.retired is None or not one.retired.count:
            continue
        try:
            raw = (lists_directory(path) / name_of(one)).read_bytes()
            found[name_of(one)] = Endorsements.read(raw, one.retired)
        except (OSError, ValueError):
            continue  # a region that has it already does not need it
    return found


def keep(context: ClientContext, raw: bytes, lists: Mapping[str, Endorsements]) -> None:
    """Replace the context's roster, lists first; raises ``OSError``."""
    write(context.roster_path, raw, lists)


def write(path: Path, raw: bytes, lists: Mapping[str, Endorsements]) -> None:
    """Write a roster, or one that is to be signed, with the lists beside it; raises ``OSError``.

    The roster gets its name last, and its place is looked at first: where it cannot be written
    nothing is. An error has the name that the file was to have.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with placing(path, private=False) as file:
        file.write(raw)
        file.flush()  # where there is no room for it, the lists are not written either
        for name, lasting in lists.items():
            directory = lists_directory(path)
            directory.mkdir(mode=0o700, exist_ok=True)
            place(directory / name, lasting.raw(), private=False)


def lacking(known: Roster, new: Roster, lists: Mapping[str, Endorsements]) -> list[str]:
    """Who is newly retired and whose list is not there: nothing on it could count."""
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
    """What another roster changes: names, and what becomes of each, for whoever signs it."""
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
        return ["TAKEN OFF: nothing that this key signed counts any more, holds included"]
    if was is None:
        return [f"is new: {_what(now)}, key {now.public_key.hex()}"]
    found = []
    if was.public_key != now.public_key:
        found.append(f"KEY REPLACED by {now.public_key.hex()}")
    if _what(was) != _what(now):
        found.append(f"was {_what(was)}; is {_what(now)}")
    if was.retired != now.retired and now.retired is not None:
        found.append(f"retired: {now.retired.count} statements last")
    return found


def _what(entry: Instance | Operator) -> str:
    if isinstance(entry, Operator):
        return f"operator with role {', '.join(role.value for role in entry.roles) or 'none'}"
    grants = ", ".join(f"{one.tenant}/{one.service}" for one in entry.grants) or "nothing"
    return f"{entry.role.value} in {entry.region}, granted {grants}"
