"""Files: who may read and write them, and whether there is room for an instance's state."""

from __future__ import annotations

import stat
from collections.abc import Collection
from typing import Final

from kcm_deployment.doctor.file_facts import Above, FileFacts
from kcm_deployment.doctor.finding import Finding, State, bad, good, unknown, warn
from kcm_deployment.doctor.plan import Kind, Named

FREE_MIN: Final = 64 << 20
"""Bytes that must be free: rosters and the baseline of the registry are written whole."""

FREE_LOW: Final = 1 << 30
"""Bytes of free space from which on there is no warning."""

OF_A_UNIT: Final = "/run/credentials/"
"""Where systemd gives credentials to a unit, while it runs."""

_SECRETS: Final = (Kind.SECRET, Kind.CREDENTIALS)
_PUBLIC: Final = (Kind.PUBLIC, Kind.CERTIFICATE)


def check_file(named: Named, facts: FileFacts, owners: Collection[int]) -> tuple[Finding, ...]:
    """Return the findings about one path; ``owners`` are the users that may own a secret."""
    if facts.error:
        return (_not_seen(named, facts),)
    if (named.kind is Kind.STATE) != facts.directory:
        text = f"{named.path} is {'a' if facts.directory else 'not a'} directory"
        return (bad(named.key, text, f"correct `{named.key}` in the configuration"),)
    found = [_access(named, facts, owners), *_directories(named, facts.above, owners)]
    faults = tuple(one for one in found if one.state is not State.OK)
    judged = faults or (found[0],)
    return (*judged, room(named, facts.free)) if named.kind is Kind.STATE else judged


def room(named: Named, free: int) -> Finding:
    """Compare the free space on a state directory's disk with what is needed."""
    check, text = f"{named.key}-room", f"{named.path}: {free >> 20} MiB are free"
    fix = "free space on this disk, or move the directory to another one"
    if free < FREE_MIN:
        return bad(check, text, fix)
    return warn(check, text, fix) if free < FREE_LOW else good(check, text)


def _not_seen(named: Named, facts: FileFacts) -> Finding:
    text = f"{named.path}: {facts.error}"
    if str(named.path).startswith(OF_A_UNIT):
        fix = "start the unit, and run the command as root: systemd gives it the file while it runs"
        return unknown(named.key, text, fix)
    if facts.missing:
        return bad(named.key, text, f"create it, or correct `{named.key}` in the configuration")
    return unknown(named.key, text, "run the command as root, or as the user of the instance")


def _access(named: Named, facts: FileFacts, owners: Collection[int]) -> Finding:
    path, others = named.path, facts.mode & 0o077
    if named.kind in _SECRETS:
        if facts.owner == facts.group == 0:
            others &= ~0o040  # how systemd gives a credential to a unit, by an access list
        if others:
            return bad(named.key, f"other users have access to {path}", f"chmod 600 {path}")
    elif facts.mode & 0o002 and not facts.mode & stat.S_ISVTX:
        return bad(named.key, f"every user may write {path}", f"chmod o-w {path}")
    elif facts.mode & 0o020:
        return warn(named.key, f"a group may write {path}", f"chmod g-w {path}")
    if facts.owner not in owners:
        text = f"{path} belongs to the user {facts.owner}"
        judge = warn if named.kind in _PUBLIC else bad
        return judge(named.key, text, f"give it to the user of the instance: `chown USER {path}`")
    if named.kind is Kind.STATE and not facts.writable:
        text = f"{path} cannot be written by this user"
        fix = "run the command as the user of the instance, or `chown` the directory to it"
        return unknown(named.key, text, fix)
    return good(named.key, f"{path} has the right owner and mode")


def _directories(named: Named, above: Collection[Above], owners: Collection[int]) -> list[Finding]:
    """A user who may write a directory can put another file in the place of this one."""
    check, found = f"{named.key}-directory", []
    for one in above:
        text = f"may replace {named.path}: {one.path} is writable"
        sticky = bool(one.mode & stat.S_ISVTX)
        if one.mode & 0o002 and not sticky:
            found.append(bad(check, f"every user {text}", f"chmod o-w {one.path}"))
        elif one.mode & 0o020 and not sticky:
            found.append(warn(check, f"a group {text}", f"chmod g-w {one.path}"))
        elif one.owner not in owners:
            fix = f"give it to root, or to the user of the instance: `chown USER {one.path}`"
            found.append(warn(check, f"the user {one.owner} {text}", fix))
    return found
