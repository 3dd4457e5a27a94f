"""The roster in force: the highest one that was ever accepted here, and its lists.

A roster arrives by file, by the region's control stream or by an operator's command, and is taken
over at run time. It comes into force if the pinned root signed it and it may follow the roster in
force. This happens at once, because it may void a lift that keeps a tenant in service. Every
component that remembers a judgement is notified whose entry changed, and judges again. Then the
roster is saved to the disk, with retries: a restarted instance continues with it and never with an
older one.
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
from kcm_runtime.logs import fields

log = logging.getLogger(__name__)

ROSTER: Final = "roster"
"""The file name of the copy in the state directory."""

_ENDORSEMENTS: Final = "endorsements-"

OnRoster = Callable[[frozenset[str]], None]
"""Called with the names whose entry or list has changed. Must not wait."""


FindList = Callable[[str, Retirement], bytes | None]
"""Returns the list of a name to which a roster commits, or ``None``."""


class RosterFiles:
    """The highest roster and the endorsement lists in an instance's state directory."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory

    def read(self) -> bytes | None:
        """Return the roster that was accepted last, or ``None``; raises ``ConfigError``."""
        path = self._directory / ROSTER
        try:
            with path.open("rb") as file:
                return file.read(STATEMENT_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None

    def write(self, raw: bytes) -> None:
        """Save a roster, durable when this returns; raises ``OSError``."""
        self._write(ROSTER, raw)

    def read_list(self, said: Retirement) -> bytes | None:
        """Return the list to which a roster commits, or ``None``."""
        try:
            return (self._directory / _list_name(said)).read_bytes()
        except OSError:
            return None

    def write_list(self, said: Retirement, raw: bytes) -> None:
        """Save a list, durable when this returns; raises ``OSError``."""
        self._write(_list_name(said), raw)

    def _write(self, name: str, raw: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place(self._directory / name, raw)


class Rosters:
    """The roster in force. Used from the event loop's thread only."""

    def __init__(
        self,
        verifier: Verifier,
        *,
        raw: bytes = b"",
        root_public: bytes = b"",
        files: RosterFiles | None = None,
    ) -> None:
        """``raw`` is the verifier's signed roster. Without a root no other roster is accepted."""
        self._verifier = verifier
        self._raw = raw
        self._root: Final = root_public
        self._files: Final = files
        self._kept = True
        self._listeners: list[OnRoster] = []
        self._find: FindList = lambda _name, _said: None
        self.left: frozenset[str] = frozenset()
        """During a notification: the names whose only change is a retirement or a list."""
        self.more = False
        """During a notification: whether statements may count that did not count before."""

    @property
    def verifier(self) -> Verifier:
        """The verifier by the roster in force: read it for every decision, never store it."""
        return self._verifier

    @property
    def raw(self) -> bytes:
        """The roster in force as it was signed; empty if that form is not known."""
        return self._raw

    @property
    def version(self) -> int:
        """The version of the roster in force."""
        return self._verifier.roster.version

    def listen(self, told: OnRoster) -> None:
        """Call ``told`` at every change, in the order of ``listen``, before other effects."""
        self._listeners.append(told)

    def lists_from(self, find: FindList) -> None:
        """Set the source of lists that arrived before the roster that commits to them."""
        self._find = find

    def take(self, raw: bytes) -> bool:
        """Put a roster in force; returns ``False`` if it is in force already.

        Raises ``Untrusted`` if it must not follow, and ``unavailable`` if it cannot be saved: it is
        in force nevertheless, and the caller retries ``keep``.
        """
        if raw == self._raw:
            self.keep()
            return False
        known, roster = self._verifier.roster, self.examine(raw)
        endorsements = {
            name_of(one): found
            for one in entries(roster)
            if one.retired is not None
            and (found := self._list(name_of(one), one.retired)) is not None
        }
        self._raw, self._kept = raw, False
        log.warning(
            "another roster is in force; the last version was %d",
            known.version,
            extra=fields(version=roster.version),
        )
        names, gone = changed(known, roster), left(known, roster)
        self._count(Verifier(roster, endorsements), names, gone, more=more(known, roster))
        self.keep()
        return True

    def keep(self) -> None:
        """Save the roster in force to the disk; raises ``unavailable``."""
        if not self._kept:
            raw = self._raw
            self._keep(lambda files: files.write(raw))
            self._kept = True

    def outbid_by(self, raw: bytes) -> int:
        """Return the higher version of a roster that the root signed for this system, or 0.

        That roster may be one that must not follow the roster in force.
        """
        try:
            roster = verify_roster(raw, self._root, self.version + 1)
        except Untrusted:
            return 0
        return roster.version if roster.system == self._verifier.roster.system else 0

    def examine(self, raw: bytes) -> Roster:
        """Return a roster that may follow the roster in force.

        Raises ``Outdated`` for an older one, and ``Untrusted``.
        """
        known = self._verifier.roster
        roster = verify_roster(raw, self._root, 0)
        follows(known, roster)
        return roster

    def missing(self) -> dict[str, Retirement]:
        """Return the retired signers whose lists are missing here, by name."""
        return missing_lists(self._verifier)

    def take_list(self, name: str, raw: bytes) -> None:
        """Take a retired signer's list; raises ``ValueError`` unless the roster commits to it."""
        said = self.missing().get(name)
        if said is None:
            return
        found = Endorsements.read(raw, said)
        self._keep_list(name, said, raw)
        now = self._verifier
        names = frozenset({name})
        self._count(Verifier(now.roster, {**now.endorsements, name: found}), names, names)

    def _list(self, name: str, said: Retirement) -> Endorsements | None:
        if not said.count:
            return NOTHING
        known = self._verifier.endorsements.get(name)
        if known is not None and known.retirement() == said:
            return known
        kept = read_list(self._files, name, said)
        raw = self._find(name, said) if kept is None else None
        if raw is None:
            return kept
        found = Endorsements.read(raw, said)
        self._keep_list(name, said, raw)
        return found

    def _keep_list(self, name: str, said: Retirement, raw: bytes) -> None:
        try:
            self._keep(lambda files: files.write_list(said, raw))
        except KcmError:
            log.error(
                "endorsements are not saved to the disk; a restart fetches them again",
                extra=fields(signer=name),
            )

    def _keep(self, write: Callable[[RosterFiles], None]) -> None:
        if self._files is None:
            return
        try:
            write(self._files)
        except OSError as error:
            log.critical("the state directory cannot be written: %s", error.strerror)
            failure = KcmError(
                Code.UNAVAILABLE, "the roster is in force, and is not on the disk yet"
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
            # A listener may take a list, which is a change of its own.
            self.left, self.more = gone, more
            try:
                told(names)
            except Exception as error:  # noqa: BLE001 - the other listeners have to be called
                log.critical(
                    "a roster did not have all of its effect: %s",
                    describe(error),
                    extra=fields(version=verifier.roster.version),
                )


def open_rosters(path: Path, root_public: bytes, state_dir: Path) -> Rosters:
    """Open the higher one of the configured roster and the one that was accepted last.

    Raises ``ConfigError`` if one of them cannot be read or verified, and ``Untrusted`` if the
    configured one must not follow the other one.
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
                f"{state_dir / ROSTER} is damaged; it has the last accepted roster: {error}"
            ) from None
        if known.version > roster.version:
            log.warning(
                "the roster's file is older than version %d, which is in force",
                known.version,
                extra=fields(path=str(path), version=roster.version),
            )
            raw, roster = kept, known
        follows(known, roster)
    if raw != kept:
        try:
            files.write(raw)
        except OSError as error:
            raise ConfigError(f"cannot write to {state_dir}: {error.strerror}") from None
    endorsements = {
        name_of(one): found
        for one in entries(roster)
        if one.retired is not None
        and (found := read_list(files, name_of(one), one.retired)) is not None
    }
    return Rosters(Verifier(roster, endorsements), raw=raw, root_public=root_public, files=files)


def read_list(files: RosterFiles | None, name: str, said: Retirement) -> Endorsements | None:
    """Return a list from the state directory; a damaged one counts as absent."""
    if not said.count:
        return NOTHING
    raw = files.read_list(said) if files is not None else None
    try:
        return None if raw is None else Endorsements.read(raw, said)
    except ValueError:
        log.error(
            "a list of endorsements is damaged on disk; it is fetched again",
            extra=fields(signer=name),
        )
        return None


def missing_lists(verifier: Verifier) -> dict[str, Retirement]:
    """Return the retired signers of a verifier's roster whose lists it lacks, by name."""
    return {
        name_of(one): one.retired
        for one in entries(verifier.roster)
        if one.retired is not None
        and one.retired.count
        and name_of(one) not in verifier.endorsements
    }


def _list_name(said: Retirement) -> str:
    return f"{_ENDORSEMENTS}{said.endorsements.hex()}"
