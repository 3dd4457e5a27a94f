"""``kcm init``: the files of a deployment, from one plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from kcm.cli.error_report import Problem
from kcm.cli.output import emit, note, say
from kcm.cli.settings import Settings, common
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_deployment.deployment import Deployment
    from kcm_deployment.members import Member


@click.command()
@click.argument(
    "plan", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("deployment"),
    show_default=True,
    metavar="DIR",
    help="Where the files are written.",
)
@click.option("--example", is_flag=True, help="Print a plan to start from, and write nothing.")
@common
def init(settings: Settings, plan: Path | None, directory: Path, *, example: bool) -> int:
    """Make the files of a deployment from a plan.

    They are keys, roster, credentials, certificates and configurations, in one directory for each
    machine. Do this without a network, on an encrypted disk: DIR/authority has every secret, and
    no machine needs it. The same command again keeps every key, adds what the plan has more, and
    renews certificates that end soon.

    \b
    Examples:
      kcm init --example > plan.toml
      kcm init plan.toml --dir deployment
    """  # noqa: D301 - click wants the control character
    from kcm_deployment.plan_file import EXAMPLE

    if example:
        say(EXAMPLE)
        return Exit.OK
    if plan is None:
        raise Problem(
            Exit.USAGE, "usage", "which plan?", "`kcm init --example` prints one to start from"
        )
    deployment = _read(plan)
    purposes = dict(_rows(deployment))
    made = _write(settings, directory, deployment, purposes)
    rows = [(one, made.changes.get(one, "not written"), use) for one, use in purposes.items()]
    next_steps = _next(directory, deployment, made)
    value = {
        "directory": str(directory),
        "system": deployment.system,
        "root_public": made.root_public.hex(),
        "roster": made.roster,
        "bundles": [{"bundle": one, "change": change, "for": use} for one, change, use in rows],
        "next": next_steps,
    }
    emit(settings, value, ("bundle", "change", "for"), rows)
    if not settings.json:
        note(settings, f"operator root: {made.root_public.hex()} (compare it by telephone)")
        note(settings, f"{directory / 'authority'} has every secret: keep it offline, with a copy")
        for step in next_steps:
            note(settings, f"next: {step}")
    for region in deployment.regions:
        if region.ca is not None:
            text = (
                f"add clients.pem and clients.key, signed by {region.ca}, to each server of"
                f" {region.name}"
            )
            note(settings, text, region=region.name, add=["clients.pem", "clients.key"])
    return Exit.OK


def _read(plan: Path) -> Deployment:
    from kcm_runtime.config import ConfigError

    from kcm_deployment.plan_file import read_plan

    try:
        return read_plan(plan)
    except ConfigError as error:
        raise Problem(
            Exit.USAGE, "plan", str(error),
            "nothing was made: correct the plan; `kcm init --example` prints one that is valid",
        ) from None  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Made:
    """What was written: the operator root's public key, the roster's versions, the changes."""

    root_public: bytes
    roster: int
    roster_before: int
    """0: there was none."""
    changes: Mapping[str, str]
    moved: Sequence[str]
    """What the plan changes about servers that exist."""

    def changed(self, *names: str) -> bool:
        """Whether one of these bundles was there before and has changed."""
        return any(self.changes.get(name) == "changed" for name in names)


def _next(directory: Path, deployment: Deployment, made: _Made) -> list[str]:
    """Return what brings a change to a system that runs, in order."""
    from kcm_deployment.bundles import AUTHORITY, PUSH
    from kcm_deployment.layouts import SYSTEMD

    if not made.roster_before:
        return []
    steps = list(made.moved)
    if "made" in made.changes.values() or "changed" in made.changes.values():
        steps.append("carry each directory that is made or changed to its machine")
    steps += [
        f"`kcm broker push {directory / region / PUSH}`"
        for region in deployment.names
        if made.changed(f"{region}/{PUSH}")
    ]
    if made.changed(*(SYSTEMD.server_bundle("", one) for one in deployment.backbone)):
        steps.append("`systemctl reload nats-server` on each server of the backbone")
    if made.roster != made.roster_before:
        steps.append(
            f"`kcm roster put {directory / AUTHORITY / 'roster'}`, before new instances start"
        )
    return steps


def _write(
    settings: Settings, directory: Path, deployment: Deployment, bundles: Iterable[str]
) -> _Made:
    """Write the bundles."""
    from kcm_runtime.files.secret_file import SecretFileError
    from kcm_schemas.codes import KcmError

    from kcm_deployment.bundles import AUTHORITY, write_bundles
    from kcm_deployment.changes import changes, state
    from kcm_deployment.layouts import SYSTEMD
    from kcm_deployment.locking import exclusive
    from kcm_deployment.server_changes import moved_servers
    from kcm_deployment.trust_files import known_roster

    _check_directory(directory)
    hint = "what exists is kept: correct this, then give the command again"
    try:
        with exclusive(directory):
            now_ms = settings.around.clock.unix_ms()
            named = [one for one in bundles if one != AUTHORITY]
            before, known = state(directory, named), known_roster(directory / AUTHORITY)
            moved = moved_servers(directory / AUTHORITY, deployment)
            public = write_bundles(directory, deployment, SYSTEMD, now_ms)
            roster = known_roster(directory / AUTHORITY)
            changed = changes(before, state(directory, named))
    except OSError as error:
        text = f"{error.filename or directory}: {error.strerror}"
        raise Problem(Exit.FAULT, "io", text, hint) from None
    except SecretFileError as error:
        raise Problem(Exit.FAULT, "secret_file", str(error), hint) from None
    except KcmError as error:
        raise Problem(Exit.FAULT, error.code, error.detail, hint) from None
    assert roster is not None
    return _Made(public, roster.version, known.version if known else 0, changed, moved)


def _check_directory(directory: Path) -> None:
    """Refuse a directory of something else, and one that cannot be made."""
    above = next(one for one in (directory, *directory.absolute().parents) if one.exists())
    if not above.is_dir():
        raise Problem(
            Exit.USAGE, "usage", f"cannot make {directory}: {above} is a file",
            "name a new or empty directory with --dir",
        )  # fmt: skip
    if not directory.is_dir() or (directory / "authority").is_dir():
        return
    from kcm_deployment.locking import LOCK

    if any(one.name != LOCK for one in directory.iterdir()):
        raise Problem(
            Exit.USAGE, "usage", f"{directory} has files, and is not the directory of a deployment",
            "name a new or empty directory with --dir",
        )  # fmt: skip


def _what(member: Member) -> str:
    role = member.role.value.capitalize()
    return f"{role} inside of {member.application}" if member.application else role


def _rows(deployment: Deployment) -> list[tuple[str, str]]:
    """Return each bundle, and what it is for."""
    from kcm_deployment.bundles import PROVISION, PUSH
    from kcm_deployment.layouts import SYSTEMD

    rows = [(SYSTEMD.operator_bundle(one.name), "operator") for one in deployment.operators]
    rows += [
        (SYSTEMD.server_bundle("", one), f"broker at {one.host}") for one in deployment.backbone
    ]
    for region in deployment.regions:
        rows += [
            (SYSTEMD.server_bundle(region.name, one), f"broker at {one.host}")
            for one in region.servers
        ]
        rows.append((f"{region.name}/{PROVISION}", "kcm region provision"))
        rows.append((f"{region.name}/{PUSH}", "kcm broker push"))
        rows += [(SYSTEMD.instance_bundle(one), _what(one)) for one in region.members]
    return rows
