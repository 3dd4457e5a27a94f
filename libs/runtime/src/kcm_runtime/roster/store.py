"""Whom to believe now: the highest roster that was ever accepted here, and the lists beside it.

A roster comes by file, by the region's control stream or by an operator's command, and is taken
over while everything runs. It counts when the pinned root signed it and when it follows the one
that counts now: at once, for it may say that a lift, which keeps a tenant served, counts no more.
Everybody who remembers a judgement is told whose entry changed, and judges anew. Then it is kept on
the disk, until it is there: whoever is started again goes on from it and never from an older one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Retirement, Roster
from kcm_trust.endorsements import NOTHING, Endorsements
from kcm_trust.roster import changed, entries, follows, left, more, name_of
from kcm_trust.verify import STATEMENT_MAX, Untrusted, Verifier, verify_roster

from kcm_runtime.config import ConfigError
from kcm_runtime.error_text import describe
from kcm_runtime.files.atomic import place

log = logging.getLogger(__name__)

ROSTER: Final = "roster"
"""The name of the copy in the state directory."""

_LASTING: Final = "lasting-"

OnRoster = Callable[[frozenset[str]], None]
"""Called with the names of those whose entry, or list, is another one now. Must not wait."""


FindList = Callable[[str, Retirement], bytes | None]
"""A list by the name of whose it is, and what the roster says of it; ``None``: it is not here."""


class RosterFiles:
    """The highest roster, and the lists of what lasts, in an instance's state directory."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory

    def read(self) -> bytes | None:
        """The roster that was accepted last, if there was one; raises ``ConfigError``."""
        path = self._directory / ROSTER
        try:
            with path.open("rb") as file:
                return file.read(STATEMENT_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None

    def write(self, raw: bytes) -> None:
        """Keep a roster, on the disk when this returns; raises ``OSError``."""
        self._write(ROSTER, raw)

    def read_list(self, said: Retirement) -> bytes | None:
        """A list by what the roster says of it; ``None`` when it is not here."""
        try:
            return (self._directory / _list_name(said)).read_bytes()
        except OSError:
            return None

    def write_list(self, said: Retirement, raw: bytes) -> None:
        """Keep a list, on the disk when this returns; raises ``OSError``."""
        self._write(_list_name(said), raw)

    def _write(self, name: str, raw: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place(self._directory / name, raw)


class Rosters:
    """The roster that counts now. Used from the event loop's thread only."""

    def __init__(
        self,
        verifier: Verifier,
        *,
        raw: bytes = b"",
        root_public: bytes = b"",
        files: RosterFiles | None = None,
    ) -> None:
        """``raw`` is the verifier's roster as it was signed; without a root no other one counts."""
        self._verifier = verifier
        self._raw = raw
        self._root: Final = root_public
        self._files: Final = files
        self._kept = True
        self._listeners: list[OnRoster] = []
        self._find: FindList = lambda _name, _said: None
        self.left: frozenset[str] = frozenset()
        """While a change is told: of whom nothing changed but that they are retired, or a list."""
        self.more = False
        """While a change is told: whether somebody may say what nobody believed before."""

    @property
    def verifier(self) -> Verifier:
        """Whom to believe now. Ask every time, and keep it nowhere."""
        return self._verifier

    @property
    def raw(self) -> bytes:
        """The roster that counts, as it was signed; empty when it is not known in that form."""
        return self._raw

    @property
    def version(self) -> int:
        """Its version."""
        return self._verifier.roster.version

    def listen(self, told: OnRoster) -> None:
        """Be told of every change, in the order of listening, before anything else happens."""
        self._listeners.append(told)

    def lists_from(self, find: FindList) -> None:
        """Where a list is that came before the roster that names it: both count together."""
        self._find = find

    def take(self, raw: bytes) -> bool:
        """Take a roster over; ``False`` when it is the one that counts already.

        Raises ``Untrusted`` when it must not take its place, and ``unavailable`` when it cannot be
        kept: it counts all the same, and ``keep`` has to be tried again.
        """
        if raw == self._raw:
            self.keep()
            return False
        known, roster = self._verifier.roster, self.examine(raw)
        lasting = {
            name_of(one): found
            for one in entries(roster)
            if one.retired is not None
            and (found := self._list(name_of(one), one.retired)) is not None
        }
        self._raw, self._kept = raw, False
        log.warning("the roster is version %d from now on", roster.version)
        names, gone = changed(known, roster), left(known, roster)
        self._count(Verifier(roster, lasting), names, gone, more=more(known, roster))
        self.keep()
        return True

    def keep(self) -> None:
        """See to it that the roster that counts is on the disk; raises ``unavailable``."""
        if not self._kept:
            raw = self._raw
            self._keep(lambda files: files.write(raw))
            self._kept = True

    def outbid_by(self, raw: bytes) -> int:
        """The higher version of this system with which the root signed this one, or 0.

        It may be one that must not follow.
        """
        try:
            roster = verify_roster(raw, self._root, self.version + 1)
        except Untrusted:
            return 0
        return roster.version if roster.system == self._verifier.roster.system else 0

    def examine(self, raw: bytes) -> Roster:
        """A roster that may take the place of the one that counts.

        Raises ``Outdated`` for one whose place it took, and ``Untrusted``.
        """
        known = self._verifier.roster
        roster = verify_roster(raw, self._root, 0)
        follows(known, roster)
        return roster

    def missing(self) -> dict[str, Retirement]:
        """Those who are retired and whose list is not here, by name."""
        return missing_lists(self._verifier)

    def take_list(self, name: str, raw: bytes) -> None:
        """Take the list of somebody retired; raises ``ValueError`` unless the roster names it."""
        said = self.missing().get(name)
        if said is None:
            return
        found = Endorsements.read(raw, said)
        self._keep_list(said, raw)
        now = self._verifier
        names = frozenset({name})
        self._count(Verifier(now.roster, {**now.lasting, name: found}), names, names)

    def _list(self, name: str, said: Retirement) -> Endorsements | None:
        if not said.count:
            return NOTHING
        known = self._verifier.lasting.get(name)
        if known is not None and known.retirement() == said:
            return known
        kept = read_list(self._files, said)
        raw = self._find(name, said) if kept is None else None
        if raw is None:
            return kept
        found = Endorsements.read(raw, said)
        self._keep_list(said, raw)
        return found

    def _keep_list(self, said: Retirement, raw: bytes) -> None:
        try:
            self._keep(lambda files: files.write_list(said, raw))
        except KcmError:
            log.error("a list of what lasts is not kept on disk; it is asked for again at a start")

    def _keep(self, write: Callable[[RosterFiles], None]) -> None:
        if self._files is None:
            return
        try:
            write(self._files)
        except OSError as error:
            log.critical("the state directory cannot be written: %s", error.strerror)
            failure = KcmError(
                Code.UNAVAILABLE, "the roster counts here, and is not on the disk yet"
            )
        else:
            return
        raise failure

    def _count(
        self,
        verifier: Verifier,
        names: frozenset[str],
        gone: frozenset[str],
        *,
        more: bool = False,
    ) -> None:
        self._verifier = verifier
        for told in self._listeners:
            # One of them may take a list, whose change is another one.
            self.left, self.more = gone, more
            try:
                told(names)
            except Exception as error:  # noqa: BLE001 - the others have to be told all the same
                log.critical("a new roster had not all of its effect: %s", describe(error))


def open_rosters(path: Path, root_public: bytes, state_dir: Path) -> Rosters:
    """The higher one of the configured roster and the one that was accepted last.

    Raises ``ConfigError`` when one of them cannot be read or is not believed, and ``Untrusted``
    when the configured one must not take the other one's place.
    """
    files = RosterFiles(state_dir)
    try:
        with path.open("rb") as file:
            raw = file.read(STATEMENT_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the roster {path}: {error.strerror}") from None
    roster = verify_roster(raw, root_public, 0)
    kept = files.read()
    if kept is not None:
        try:
            known = verify_roster(kept, root_public, 0)
        except Untrusted as error:
            raise ConfigError(
                f"{state_dir / ROSTER} is damaged; it says which roster was accepted last: {error}"
            ) from None
        if known.version > roster.version:
            log.warning("the roster %s is older than the one that counts", path)
            raw, roster = kept, known
        follows(known, roster)
    if raw != kept:
        try:
            files.write(raw)
        except OSError as error:
            raise ConfigError(f"cannot write to {state_dir}: {error.strerror}") from None
    lasting = {
        name_of(one): found
        for one in entries(roster)
        if one.retired is not None and (found := read_list(files, one.retired)) is not None
    }
    return Rosters(Verifier(roster, lasting), raw=raw, root_public=root_public, files=files)


def read_list(files: RosterFiles | None, said: Retirement) -> Endorsements | None:
    """A list from the state directory; one that is damaged is as good as absent."""
    if not said.count:
        return NOTHING
    raw = files.read_list(said) if files is not None else None
    try:
        return None if raw is None else Endorsements.read(raw, said)
    except ValueError:
        log.error("a list of what lasts is damaged on disk; it is asked for again")
        return None


def missing_lists(verifier: Verifier) -> dict[str, Retirement]:
    """Those who are retired on a verifier's roster and whose list it does not have, by name."""
    return {
        name_of(one): one.retired
        for one in entries(verifier.roster)
        if one.retired is not None and one.retired.count and name_of(one) not in verifier.lasting
    }


def _list_name(said: Retirement) -> str:
    return f"{_LASTING}{said.lasting.hex()}"
