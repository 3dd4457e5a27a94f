"""What a check found: a state, a text, and one line that says how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"
    """It works, and protects less than it could, or will soon not work."""
    FAIL = "fail"
    UNKNOWN = "unknown"
    """The check could not find it out from here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. The texts have no secret, and ``fix`` is empty if all is well."""

    check: str
    state: State
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was checked, for example one address of a broker, and all findings about it."""

    name: str
    findings: tuple[Finding, ...]


def good(check: str, text: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, State.OK, text)


def warn(check: str, text: str, fix: str) -> Finding:
    """Return a finding that leaves the exit code 0."""
    return Finding(check, State.WARN, text, fix)


def bad(check: str, text: str, fix: str) -> Finding:
    """Return a finding that fails the command."""
    return Finding(check, State.FAIL, text, fix)


def unknown(check: str, text: str, fix: str) -> Finding:
    """Return the finding that the check could not decide; ``fix`` says how to find it out."""
    return Finding(check, State.UNKNOWN, text, fix)


def failed(subjects: Iterable[Subject]) -> int:
    """Return how many findings are failures."""
    return sum(one.state is State.FAIL for subject in subjects for one in subject.findings)
