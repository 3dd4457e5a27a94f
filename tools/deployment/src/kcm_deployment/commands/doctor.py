"""``kcm doctor``: checks of a machine and of the brokers that it uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from kcm.cli.error_report import Problem
from kcm.cli.output import advise, emit, say
from kcm.cli.settings import Settings, common, run_async
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_deployment.doctor.finding import Subject
    from kcm_deployment.doctor.plan import Plan


@click.command()
@click.option(
    "--config",
    "configs",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The TOML file of an instance or of provisioning, in place of the context (repeatable).",
)
@click.option(
    "--machine/--no-machine",
    default=True,
    help="Check this machine, too [default: yes].",
)
@common
def doctor(settings: Settings, configs: tuple[Path, ...], *, machine: bool) -> int:
    """Check this machine and its brokers, and show how to fix them.

    Without --config, the brokers, files and roster of the context are checked. Nothing is changed.
    Run it as the user of an instance, or as root. Exit code 7 if a check fails.

    Example: kcm doctor --config /etc/kcm/core/core-eu-de-1.toml
    """
    from kcm_deployment.doctor.finding import failed
    from kcm_deployment.doctor.shown import document, lines

    found = run_async(_found(settings, configs, machine=machine))
    number = failed(found)
    if settings.json:
        emit(settings, document(found), (), ())
    else:
        say(lines(found))
    if not number:
        return Exit.OK
    advise(settings, f"{number} of the checks failed: `fix` of each says what to do")
    return Exit.CHECK_FAILED


async def _found(settings: Settings, configs: tuple[Path, ...], *, machine: bool) -> list[Subject]:
    from kcm_deployment.doctor.checks.machine import check_machine
    from kcm_deployment.doctor.examination import examine
    from kcm_deployment.doctor.finding import Subject
    from kcm_deployment.doctor.machine_facts import read_machine

    plans = _plans(settings, configs)
    found = [Subject("machine", check_machine(read_machine()))] if machine else []
    for plan in plans:
        found += await examine(plan, settings.around.clock)
    return found


def _plans(settings: Settings, configs: tuple[Path, ...]) -> list[Plan]:
    """Read the files that are named; raises ``Problem`` and ``ContextError``."""
    from kcm_runtime.config import ConfigError

    from kcm_deployment.doctor.configuration import read_configuration

    try:
        plans = [read_configuration(path) for path in configs]
    except ConfigError as error:
        hint = "name the TOML file of an instance or of provisioning"
        raise Problem(Exit.USAGE, "usage", str(error), hint) from None
    if settings.context_file or not configs:
        plans.append(_context_plan(settings))
    return plans


def _context_plan(settings: Settings) -> Plan:
    """Return the plan of the context. A machine without any has nothing of it to check."""
    import os

    from kcm._internal.client_files import ENVIRONMENT, default_path

    from kcm_deployment.doctor.context_plan import plan_of
    from kcm_deployment.doctor.finding import unknown
    from kcm_deployment.doctor.plan import Plan

    named = settings.context_file or os.environ.get(ENVIRONMENT)
    if not named and not default_path(os.environ).exists():
        fix = "name a context with --context, or the file of an instance with --config"
        return Plan("context", findings=(unknown("context", "there is no context file", fix),))
    return plan_of(settings.context(), settings.around.clock.unix_ms())
