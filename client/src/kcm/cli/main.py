"""The ``kcm`` command: all groups, and the only handler of errors."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from kcm.cli import audit_tail as _tail  # noqa: F401 - a command of the group ``audit``
from kcm.cli import evidence as _evidence  # noqa: F401 - commands of the group ``hold``
from kcm.cli import roster_retire as _retire  # noqa: F401 - a command of the group ``roster``
from kcm.cli import roster_sign as _sign  # noqa: F401 - a command of the group ``roster``
from kcm.cli.apps import app
from kcm.cli.audit import audit
from kcm.cli.encrypt import decrypt, encrypt
from kcm.cli.error_report import Report, cannot_show, explain, show
from kcm.cli.extensions import Extensible
from kcm.cli.holds import hold
from kcm.cli.inspect import inspect
from kcm.cli.kill import kill
from kcm.cli.l1 import l1, links
from kcm.cli.lift import lift
from kcm.cli.region import region
from kcm.cli.registry import registry
from kcm.cli.roster import roster
from kcm.cli.services import service
from kcm.cli.settings import Left, World
from kcm.cli.signals import Ended
from kcm.cli.streams import give_up, is_terminal, prepare, tell
from kcm.cli.tenants import tenant
from kcm.exit_codes import HELP, Exit

if TYPE_CHECKING:
    from kcm._internal.rpc import Environment
    from kcm._internal.transport import Opener


@click.group(cls=Extensible, context_settings={"help_option_names": ["-h", "--help"]}, epilog=HELP)
@click.version_option(package_name="kcm", message="kcm %(version)s")
def cli() -> None:
    """Encrypt and decrypt with keys that the customer controls, and revoke them.

    Start with `kcm demo`, or with `kcm dev up` and docs/cli.md.
    """


for _command in (
    tenant,
    l1,
    links,
    service,
    app,
    encrypt,
    decrypt,
    inspect,
    kill,
    lift,
    hold,
    region,
    registry,
    roster,
    audit,
):
    cli.add_command(_command)


def begin() -> None:
    """Harden this process, which holds plaintext and operators' keys, and prepare its streams."""
    from kcm_runtime.hardening import make_undumpable

    make_undumpable()
    prepare()


def run(
    arguments: Sequence[str],
    opener: Opener | None = None,
    around: Environment | None = None,
) -> int:
    """Run one command and return its exit code; ``opener`` and ``around`` are for tests."""
    world = World(opener, around)
    try:
        code = cli.main(args=list(arguments), prog_name="kcm", standalone_mode=False, obj=world)
    except (click.Abort, KeyboardInterrupt):
        return _interrupted(world, Exit.INTERRUPTED)
    except Ended as ended:
        return _interrupted(world, ended.number)
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command
        tell(error.format_message())
        return Exit.USAGE
    except Exception as error:  # every fault is explained here
        if os.environ.get("KCM_DEBUG") == "1" and not isinstance(error, click.ClickException):
            raise
        return _failed(error, world, arguments)
    except SystemExit:  # raised by click: the reader of stdout is gone
        gone = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return _failed(cannot_show(gone), world, arguments)
    return int(code or 0)


def _failed(error: Exception, world: World, arguments: Sequence[str]) -> int:
    """Show an error, with the state of the change, and return its exit code."""
    if isinstance(error, OSError) and not world.command:  # no command ran: help was shown
        error = cannot_show(error)
        give_up(sys.stdout)
    report = explain(error, world.command)
    if report.exit_code is Exit.READER_GONE:
        if world.left is None:
            return Exit.READER_GONE
        report = replace(report, exit_code=Exit.FAULT)  # a change reports its state
    if isinstance(error, OSError) or report.code in {"io", "fault"}:
        report = _with_left(report, world.left)
    show(report, as_json=_wants_json(arguments) if world.json is None else world.json)
    return report.exit_code


def _with_left(report: Report, left: Left | None) -> Report:
    """Add the state of the change to a fault of this machine."""
    if left is None:
        return report
    return replace(report, detail=f"{report.detail}; {left.what}", hint=left.hint or report.hint)


def _interrupted(world: World, code: int) -> int:
    """Report an interruption, with the state of the change."""
    left = world.left
    if left is None:
        tell("interrupted" if world.command else "interrupted: nothing was done")
        return code
    hint = left.hint or "give the same command again"
    report = Report(Exit.INTERRUPTED, "interrupted", f"interrupted: {left.what}", hint)
    show(report, as_json=bool(world.json))
    return code


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether errors are shown as JSON if the options could not be parsed."""
    text = " ".join(arguments)
    forms = {
        form: any(f"{option}{form}" in text for option in ("-o ", "-o", "--format ", "--format="))
        for form in ("json", "table")
    }
    return forms["json"] or not (forms["table"] or is_terminal(sys.stdout))
