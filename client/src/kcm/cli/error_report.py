"""Errors as the user or a program reads them: what happened, and what to do next.

A traceback is not shown, because frames may contain plaintext. ``KCM_DEBUG=1`` shows it.
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
"""Escapes a text from outside for a terminal."""

_OF_THE_MACHINE: Final = {
    errno.ENOSPC: "free some space, or name a file elsewhere",
    errno.EDQUOT: "free some of your space, or name a file elsewhere",
    errno.EFBIG: "the file system does not allow files of this size; name another place",
    errno.EPIPE: "the reader of the output ended before all of it was written",
    errno.EIO: "the disk or its file system has a fault",
    errno.ENFILE: "too many files are open",
    errno.EMFILE: "too many files are open",
}
"""Faults of the machine, with their remedies. All other file errors are wrong usage."""


class Problem(Exception):
    """An error that ends a command. The text contains no plaintext."""

    def __init__(self, exit_code: Exit, code: str, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.report = Report(exit_code, code, detail, hint)

    @classmethod
    def of(cls, report: Report) -> Problem:
        """Return the error with this report."""
        problem = cls(report.exit_code, report.code, report.detail, report.hint)
        problem.report = report
        return problem


@dataclass(frozen=True, slots=True)
class Report:
    """An error as it is shown."""

    exit_code: Exit
    code: str
    detail: str
    hint: str
    regions: tuple[str, ...] = ()
    """The regions with this error, if several were asked."""
    log: tuple[str, ...] = ()
    """The last lines of the log of the process that failed."""


def cannot_read(name: str, error: OSError) -> Problem:
    """Return the error for a file that cannot be read."""
    return _cannot("read", name, error, "name an existing file that you can read")


def cannot_write(name: str, error: OSError) -> Problem:
    """Return the error for a file that cannot be written."""
    hint = "name a file in an existing directory to which you can write"
    return _cannot("write", name, error, hint)


def cannot_show(error: OSError) -> Problem:
    """Return the error for a result that stdout does not accept."""
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
    """Merge equal reports of regions; each detail begins with its regions."""
    by_text: dict[Report, list[str]] = {}
    for region, report in reports.items():
        by_text.setdefault(report, []).append(region)
    return [
        replace(report, detail=f"{', '.join(regions)}: {report.detail}", regions=tuple(regions))
        for report, regions in by_text.items()
    ]


def running() -> str:
    """Return the running command, as in ``tenant create``; empty if none runs."""
    around = click.get_current_context(silent=True)
    return "" if around is None else around.command_path.partition(" ")[2]


def explain(error: BaseException, command: str = "") -> Report:
    """Return an exception as a report. ``command`` is the failed one [default: ``running``]."""
    match error:
        case Problem():
            return error.report
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "kcm"
            return Report(Exit.USAGE, "usage", error.format_message(), f"`{path} --help`")
        case click.ClickException():
            return Report(Exit.USAGE, "usage", error.format_message(), "see `--help`")
        case OSError():
            return _of_the_system(error)
        case UnicodeError():
            text = "an argument, or a file that was given, is not UTF-8"
            return Report(Exit.USAGE, "malformed", text, "give arguments and files in UTF-8")
        case _:
            return _explain_ours(error, command)


def _of_the_system(error: OSError) -> Report:
    """Return the report for an error of the operating system, with the file's name."""
    if error.filename is None:
        hint = _OF_THE_MACHINE.get(error.errno or 0, "KCM_DEBUG=1 shows where")
        return Report(Exit.FAULT, "io", error.strerror or "the system refused it", hint)
    hint = "name an existing file or directory that you can use"
    return _cannot("use", os.fsdecode(error.filename), error, hint).report


def _explain_ours(  # noqa: C901, PLR0911 - a table of errors
    error: BaseException, command: str
) -> Report:
    from kcm_runtime.config import ConfigError
    from kcm_runtime.files.secret_file import SecretFileError
    from kcm_runtime.nats.stream_protection import Unfit
    from kcm_schemas.codes import KcmError
    from kcm_trust.verify import Untrusted
    from pydantic import ValidationError

    from kcm._internal.client_context import ContextError
    from kcm._internal.file_format import BrokenFileError, NotEncryptedError
    from kcm.errors import ServiceError, Unreached, UntrustedReply
    from kcm.ops.errors import BROKER_NEEDS, OperationError
    from kcm.ops.roster_changes import Refused

    match error:
        case ValidationError():  # an argument is not valid in a message
            detail = "; ".join(dict.fromkeys(_wrong(dict(one)) for one in error.errors()))
            hint = LOOKS_LIKE if "is not a name" in detail else "see `--help`"
            return Report(Exit.USAGE, "malformed", detail, hint)
        case ContextError():
            return Report(Exit.USAGE, "context", str(error), error.hint)
        case ConfigError() | SecretFileError():
            hint = "correct the file that the error names, then give the same command again"
            return Report(Exit.USAGE, "config", str(error), hint)
        case Untrusted():
            hint = "`kcm roster show` shows the valid roster, and which regions have it"
            return Report(Exit.CHECK_FAILED, "untrusted", str(error), hint)
        case Refused():
            return Report(Exit.CHECK_FAILED, "untrusted", str(error), error.hint)
        case Unfit():
            return Report(Exit.FAULT, "unfit", str(error), BROKER_NEEDS)
        case UntrustedReply():
            hint = "do not trust the broker or an instance there; try another --region"
            return Report(Exit.CHECK_FAILED, "untrusted", error.detail, hint)
        case KcmError():
            exit_code = Exit.UNAVAILABLE if error.retryable else Exit.REFUSED
            code = error.code.value
            replied = isinstance(error, ServiceError) and not isinstance(error, Unreached)
            hint = hint_of(command or running(), code, error.detail, replied=replied)
            return Report(exit_code, code, error.detail, hint)
        case NotEncryptedError():
            hint = (
                "for a table, name its encrypted columns with --fields; `kcm inspect FILE` "
                "shows what the file is"
            )
            return Report(Exit.CHECK_FAILED, "broken_file", str(error), hint)
        case BrokenFileError():
            hint = "do not use its output; get the file again from where it came"
            return Report(Exit.CHECK_FAILED, "broken_file", str(error), hint)
        case OperationError():
            return Report(error.exit_code, error.code, error.text, error.hint, log=error.log)
        case _:
            text = f"an unexpected fault ({type(error).__name__})"
            return Report(Exit.FAULT, "fault", text, "KCM_DEBUG=1 shows where")


def _wrong(error: Mapping[str, Any]) -> str:
    """Describe an argument that is not valid."""
    place, value = ".".join(str(step) for step in error["loc"]), error["input"]
    match error["type"]:
        case "string_pattern_mismatch" if isinstance(value, str):
            return no_name(value)
        case "string_too_long":
            return f"{place} is too long: {error['ctx']['max_length']} characters at most"
        case _:
            return f"not valid: {place}"


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
        if report.log:
            content["log"] = report.log
        tell(json.dumps(content))
        return
    tell(f"error: {clean(report.detail)} ({report.code})")
    for line in report.log:
        tell(f"  {clean(line)}")
    if report.hint:
        tell(f"hint: {clean(report.hint)}")
