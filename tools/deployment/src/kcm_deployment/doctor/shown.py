"""Findings as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from kcm.cli.error_report import clean

from kcm_deployment.doctor.finding import State, Subject, failed

_WIDTH: Final = max(map(len, State))


def lines(subjects: Iterable[Subject]) -> str:
    """Return one line for each finding, and one more for what to do about it."""
    return "\n".join(line for subject in subjects for line in _block(subject)) + "\n"


def document(subjects: list[Subject]) -> dict[str, Any]:
    """Return the same for a program."""
    findings = [
        {
            "subject": subject.name,
            "check": one.check,
            "state": one.state,
            "text": one.text,
            "fix": one.fix,
        }
        for subject in subjects
        for one in subject.findings
    ]
    return {"ok": not failed(subjects), "findings": findings}


def _block(subject: Subject) -> Iterator[str]:
    if not subject.findings:
        return
    yield clean(subject.name)
    for one in subject.findings:
        yield f"  {one.state:<{_WIDTH}}  {clean(one.check)}: {clean(one.text)}"
        if one.fix:
            yield f"  {'':<{_WIDTH}}  fix: {clean(one.fix)}"
