"""Errors as a person or a program reads them: what happened, and what to do next.

Never a traceback: it shows frames, and frames may hold what was to be encrypted. ``KCM_DEBUG=1``
shows it to whoever wants to see.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import click
from kcm_schemas.text import printable

from kcm.cli.hints import hint_of
from kcm.cli.names import LOOKS_LIKE, no_name
from kcm.cli.streams import tell
from kcm.exit_codes import Exit

clean: Final = printable
"""Text from outside, made fit for a terminal."""

_OF_THE_MACHINE: Final = {
    errno.ENOSPC: "free some space, or name a file elsewhere",
    errno.EDQUOT: "free some of your space, or name a file elsewhere",
    errno.EFBIG: "files there may not be so large; name another place",
    errno.EPIPE: "whoever read the output ended before all of it was there",
    errno.EIO: "the disk or its file system has a fault",
    errno.ENFILE: "too many files are open",
    errno.EMFILE: "too many files are open",
}
"""Faults that another name is no remedy for, and what is; all others are wrong usage."""

NO_MEMORY: Final = "no memory of its region's registry"
"""In the text of a Core that serves nothing, for it cannot tell an old registry from the newest."""


class Problem(Exception):
    """A command cannot do that. The text holds nothing of what it works on."""

    def __init__(self, exit_code: Exit, code: str, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.report = Report(exit_code, code, detail, hint)

    @classmethod
    def of(cls, report: Report) -> Problem:
        """A report that ends the command."""
        problem = cls(report.exit_code, report.code, report.detail, report.hint)
        problem.report = report
        return problem


@dataclass(frozen=True, slots=True)
class Report:
    """An error ready to be shown."""

    exit_code: Exit
    code: str
    detail: str
    hint: str
    regions: tuple[str, ...] = ()
    """The regions that say so, where several were asked."""


def cannot_read(name: str, error: OSError) -> Problem:
    """Say which file it is, and whether another name would help."""
    return _cannot("read", name, error, "name a file that is there and that you may read")


def cannot_write(name: str, error: OSError) -> Problem:
    """Say which file it is, and whether another name would help."""
    hint = "name a file in a directory that is there and that you may write to"
    return _cannot("write", name, error, hint)


def cannot_show(error: OSError) -> Problem:
    """Say that stdout does not take a result; whose reader is gone need not be told."""
    problem = cannot_write("stdout", error)
    if isinstance(error, BrokenPipeError):
        problem.report = replace(problem.report, exit_code=Exit.READER_GONE)
    return problem


def _cannot(what: str, name: str, error: OSError, hint: str) -> Problem:
    text = f"cannot {what} {name}: {error.strerror or 'it cannot be used'}"
    of_the_machine = _OF_THE_MACHINE.get(error.errno or 0)
    if of_the_machine is not None:
        return Problem(Exit.FAULT, "io", text, of_the_machine)
    return Problem(Exit.USAGE, "usage", text, hint)


def together(reports: Mapping[str, Report]) -> list[Report]:
    """What regions say, each text once, with the regions that say it."""
    by_text: dict[Report, list[str]] = {}
    for region, report in reports.items():
        by_text.setdefault(report, []).append(region)
    return [
        replace(report, detail=f"{', '.join(regions)}: {report.detail}", regions=tuple(regions))
        for report, regions in by_text.items()
    ]


def running() -> str:
    """The command that runs, as in ``tenant create``; empty where none does."""
    around = click.get_current_context(silent=True)
    return "" if around is None else around.command_path.partition(" ")[2]


def explain(error: BaseException, command: str = "") -> Report:
    """Any exception as a report; ``command`` is the one that it ended [default: ``running``]."""
    match error:
        case Problem():
            return error.report
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "kcm"
            return Report(Exit.USAGE, "usage", error.format_message(), f"`{path} --help`")
        case click.ClickException():
            return Report(Exit.USAGE, "usage", error.format_message(), "")
        case OSError():
            return _of_the_system(error)
        case UnicodeError():
            text = "a text that was given, or is in a file that was given, is no UTF-8"
            return Report(Exit.USAGE, "malformed", text, "")
        case _:
            return _explain_ours(error, command)


def _of_the_system(error: OSError) -> Report:
    """An error of a file that nobody turned into a ``Problem``: its name is what was opened."""
    if error.filename is None:
        return Report(Exit.FAULT, "io", error.strerror or "the system refused it", "")
    hint = "name a file or a directory that is there and that you may use"
    return _cannot("use", os.fsdecode(error.filename), error, hint).report


def _explain_ours(  # noqa: C901, PLR0911 - a table of errors
    error: BaseException, command: str
) -> Report:
    from kcm_runtime.config import ConfigError
    from kcm_runtime.files.secret_file import SecretFileError
    from kcm_runtime.nats.stream_protection import Unfit
    from kcm_schemas.codes import Code, KcmError
    from kcm_trust.verify import Untrusted
    from pydantic import ValidationError

    from kcm._internal.client_context import ContextError
    from kcm._internal.file_format import BrokenFileError, NotEncryptedError
    from kcm.errors import UntrustedReply
    from kcm.ops.errors import OperationError
    from kcm.ops.roster_changes import Refused

    match error:
        case ValidationError():  # what was given does not make a message
            detail = "; ".join(dict.fromkeys(_wrong(dict(one)) for one in error.errors()))
            hint = LOOKS_LIKE if "is no name" in detail else "`--help` says what it takes"
            return Report(Exit.USAGE, "malformed", detail, hint)
        case ContextError():
            return Report(Exit.USAGE, "context", str(error), error.hint)
        case ConfigError() | SecretFileError():
            return Report(Exit.USAGE, "config", str(error), "")
        case Untrusted() | Refused():
            hint = "`kcm roster show` says which roster counts, and where"
            return Report(Exit.CHECK_FAILED, "untrusted", str(error), hint)
        case Unfit():
            return Report(Exit.FAULT, "unfit", str(error), "")
        case UntrustedReply():
            hint = "the broker or an instance is not to be trusted; try another --region"
            return Report(Exit.CHECK_FAILED, "untrusted", error.detail, hint)
        case KcmError():
            exit_code = Exit.UNAVAILABLE if error.retryable else Exit.REFUSED
            code = error.code.value
            hint = hint_of(command or running(), code)
            if error.code is Code.UNAVAILABLE and NO_MEMORY in error.detail:
                hint = "`kcm registry show` says which Core has memory"
            return Report(exit_code, error.code.value, error.detail, hint)
        case NotEncryptedError():
            hint = (
                "is it a table? name its encrypted columns with --fields; `kcm inspect FILE` "
                "says what it is"
            )
            return Report(Exit.CHECK_FAILED, "broken_file", str(error), hint)
        case BrokenFileError():
            return Report(Exit.CHECK_FAILED, "broken_file", str(error), "use no output of it")
        case OperationError():
            return Report(error.exit_code, error.code, str(error), error.hint)
        case _:
            text = f"an unexpected fault ({type(error).__name__})"
            return Report(Exit.FAULT, "fault", text, "KCM_DEBUG=1 shows where")


def _wrong(error: Mapping[str, Any]) -> str:
    """What is wrong with one value that was given."""
    place, value = ".".join(str(step) for step in error["loc"]), error["input"]
    match error["type"]:
        case "string_pattern_mismatch" if isinstance(value, str):
            return no_name(value)
        case "string_too_long":
            return f"{place} is too long: {error['ctx']['max_length']} characters at most"
        case _:
            return f"not understood: {place}"


def show(report: Report, *, as_json: bool) -> None:
    """Write a report to stderr."""
    if as_json:
        content: dict[str, object] = {
            "error": report.code,
            "detail": report.detail,
            "hint": report.hint,
        }
        if report.regions:
            content["regions"] = report.regions
        tell(json.dumps(content))
        return
    tell(f"error: {clean(report.detail)} ({report.code})")
    if report.hint:
        tell(f"hint: {clean(report.hint)}")
