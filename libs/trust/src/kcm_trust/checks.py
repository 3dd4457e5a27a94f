"""The first steps of every verification: the signers, their rights and their signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import Instance, Role, Roster
from kcm_schemas.signed import Kind, Signed

from kcm_trust.endorsements import NOTHING, Endorsements
from kcm_trust.envelopes import (
    STATEMENT_MAX,
    Forged,
    Retired,
    Unknown,
    Unlisted,
    Untrusted,
    envelope,
    statement_digest,
)
from kcm_trust.identity import check, digest, to_sign
from kcm_trust.rights import Entry, Right
from kcm_trust.roster import entries, name_of

M = TypeVar("M", bound=Message)


class Checker:
    """Verifies signers by one roster and by the endorsements of retired signers."""

    def __init__(
        self, roster: Roster, endorsements: Mapping[str, Endorsements] | None = None
    ) -> None:
        """``endorsements`` has the lists of endorsements that are known here, by retired signer."""
        self.roster: Final = roster
        self.endorsements: Final = dict(endorsements or {})
        self._entries: Final[dict[str, Entry]] = {name_of(one): one for one in entries(roster)}
        self._regions: Final = {entry.region: entry for entry in roster.regions}

    @property
    def regions(self) -> list[str]:
        """All regions of the system, in order."""
        return sorted(self._regions)

    def instance(self, name: str) -> Instance:
        """Return an instance on the roster; raises ``Untrusted``."""
        entry = self._entries.get(name)
        if not isinstance(entry, Instance):
            raise Unknown("the signer is not an instance on the roster", name)
        return entry

    def acting(self, name: str) -> Instance:
        """Return an instance that is on the roster and not retired; raises ``Untrusted``."""
        entry = self.instance(name)
        _check_acts(entry)
        return entry

    def _signed(
        self, raw: bytes, right: Right, *kinds: Kind, acting: bool = False
    ) -> tuple[Signed, list[Entry]]:
        """Return a statement and its signers, each of whom has the right to sign it and has.

        Raises ``Untrusted``; with ``acting``, ``Retired`` if a signer is retired.
        """
        statement = envelope(raw, *kinds)
        if statement.system != self.roster.system:
            raise Forged(
                "the statement is of another system",
                f"{statement.system}, not {self.roster.system}",
            )
        signers = [
            right.check(self._entries.get(one.signer), one.signer) for one in statement.signatures
        ]
        content = digest(statement.body)
        for entry, one in zip(signers, statement.signatures, strict=True):
            message = to_sign(statement.system, statement.kind, one.signer, content)
            if not self._holds(entry.public_key, one.signature, message):
                raise Untrusted("a signature is not valid", one.signer)
        for entry in signers if acting else ():
            _check_acts(entry)
        return statement, signers

    def _lasts(self, raw: bytes, kind: Kind, model: type[M], right: Right) -> M:
        statement, signers = self._signed(raw, right, kind)
        self._counts(statement, signers)
        return body_of(model, statement)

    def _counts(self, statement: Signed, signers: list[Entry]) -> None:
        """Raise unless a signer is not retired, or a retired one's endorsements list it."""
        if not self._counting(statement, signers):
            raise Unlisted(
                "the root did not endorse this statement of a retired signer",
                ", ".join(map(name_of, signers)),
            )

    def _counting(self, statement: Signed, signers: list[Entry]) -> list[Entry]:
        """Return the signers that are not retired, or whose endorsements list the statement."""
        if not any(entry.retired for entry in signers):
            return signers
        named = statement_digest(statement)
        return [
            entry
            for entry in signers
            if not entry.retired or named in self.endorsements.get(name_of(entry), NOTHING)
        ]

    def _author(self, statement: Signed) -> str:
        """Return the name under which a verified statement counts: its first signer that counts.

        That signer is not retired, or its endorsements list the statement. Otherwise an attacker
        with a retired signer's key could make the statement count under that name. If no signer
        counts, it is the first one, because the holds of retired signers still count.
        """
        named = statement_digest(statement)
        names = [one.signer for one in statement.signatures]
        for name in names:
            entry = self._entries.get(name)
            if entry is not None and (
                not entry.retired or named in self.endorsements.get(name, NOTHING)
            ):
                return name
        return names[0]

    def _in_region(self, signers: list[Entry], region: str) -> None:
        for entry in signers:
            if not isinstance(entry, Instance) or (entry.role, entry.region) != (Role.CORE, region):
                raise Untrusted(
                    "the signer is not a Core of the region named",
                    f"signer {name_of(entry)}, region {region}",
                )

    def _holds(self, public: bytes, signature: bytes, message: bytes) -> bool:
        """Whether a signature is valid; the one method that a simulation replaces by a cheaper."""
        return check(public, signature, message)


def _check_acts(entry: Entry) -> None:
    if entry.retired is not None:
        raise Retired(f"the signer {name_of(entry)} is retired")


def body_of(model: type[M], statement: Signed) -> M:
    """Read the body of a statement with verified signatures; raises ``Untrusted``."""
    try:
        return decode(model, statement.body, limit=STATEMENT_MAX)
    except KcmError:
        raise Untrusted("the statement's body is not well formed", statement.kind.value) from None
