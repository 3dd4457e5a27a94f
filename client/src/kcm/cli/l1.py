"""``kcm l1``: customers' root keys. The policy to grant, a check, and links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from kcm.cli import change_summary as change
from kcm.cli import key_use
from kcm.cli.each_region import ask_region, revision_option
from kcm.cli.error_report import Problem, Report, clean, explain, show, together
from kcm.cli.link_wizard import Model, walk
from kcm.cli.names import NAME
from kcm.cli.order_state import OrderState
from kcm.cli.output import emit, note, say
from kcm.cli.settings import (
    Settings,
    at_a_terminal,
    common,
    once,
    region_option,
    run_async,
    run_change,
)
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.links import LinkRow, LinkView

    from kcm._internal.admin import Admin
    from kcm.cli.change_summary import Change

EXITS: Final = {
    "enabled": Exit.OK,
    "disabled": Exit.REFUSED,
    "forbidden": Exit.REFUSED,
    "pending_deletion": Exit.REFUSED,
    "deleted": Exit.REFUSED,
    "unreachable": Exit.UNAVAILABLE,
    "invalid": Exit.CHECK_FAILED,
}
"""Exit codes of ``check`` by the key's state."""

ABOUT_KEYS: Final = "docs/l1 has a page for each provider; `kcm l1 check URI` tests a key from here"
"""The hint for a key that does not work."""


@click.group()
def l1() -> None:
    """Check and link the root keys that customers hold.

    A root key is stored in AWS, Google Cloud, Azure or the customer's HSM. Its URI begins with
    awskms:, gcpkms:, azurekv:, pkcs11: or softkey:.
    """


@l1.command("policy")
@click.argument("uri")
@common
def policy(settings: Settings, uri: str) -> int:
    """Print exactly what the key's owner has to grant.

    This needs no running system.

    Example: kcm l1 policy awskms:alias/acme-root?region=eu-central-1
    """
    from kcm.cli.providers import ask

    said = ask("policy", uri)
    if settings.json:
        emit(settings, said, (), ())
    else:
        say(said["policy"])
    return Exit.OK


@l1.command("check")
@click.argument("uri")
@click.option(
    "--deadline",
    type=click.FloatRange(0.1, 60),
    default=10.0,
    show_default=True,
    help="Seconds for each step.",
)
@click.option(
    "--model",
    type=click.Choice(["byok", "hyok"]),
    default="byok",
    show_default=True,
    help="With hyok, refuse a key that differs from what `kcm l1 policy URI` requires.",
)
@common
def check(settings: Settings, uri: str, deadline: float, model: Model) -> int:
    """Test a root key as it will be used, with your own credentials.

    Wraps, unwraps, opens a canary, tries another context, and reads the key's attributes. This
    needs no running system.

    \b
    Exit codes: 0 enabled; 3 disabled, forbidden, pending_deletion or deleted,
    with --model hyok also a key that lacks a required property;
    5 unreachable; 7 invalid (its replies do not authenticate).

    Example: kcm l1 check pkcs11:token=acme;object=root?module-path=/usr/lib/hsm.so
    """  # noqa: D301 - click wants the control character
    from kcm.cli.providers import ask

    said = ask("check", uri, deadline_s=deadline, model=model)
    emit(
        settings,
        said,
        ("step", "state", "ms", "detail"),
        [(one["step"], one["state"], one["ms"], one["detail"]) for one in said["steps"]],
    )
    if not settings.json:
        _tell(said)
    if said["state"] == "enabled" and not said["may_be_linked"]:
        return Exit.REFUSED
    return EXITS.get(str(said["state"]), Exit.FAULT)


def _tell(said: dict[str, Any]) -> None:
    if said["state"] == "enabled":
        about = f"{said['mechanism']}, version {said['key_version']}, as {said['principal']}"
        say(clean(f"enabled: {about}") + "\n")
    for text in said["missing"]:
        say(clean(f"missing: {text}") + "\n")
    for text in said["fix"]:
        say(clean(f"next:    {text}") + "\n")


@l1.command("list")
@region_option
@common
def list_links(settings: Settings, region: str | None) -> None:
    """Show the linked root keys of a region, by name.

    Each row has the number of tenants, which may be 0. No key is used: `kcm l1 check URI` tests
    one. `kcm l1 list` and `kcm link list` are the same.

    Example: kcm link list -o json
    """

    async def ask(admin: Admin, place: str) -> list[LinkRow]:
        return await admin.links(place)

    rows = run_async(ask_region(settings, region, ask))
    emit(
        settings,
        rows,
        ("link", "region", "model", "tenants", "revision", "uri"),
        [(row.link, row.region, row.model, row.tenants, row.revision, row.uri) for row in rows],
    )


@click.group("link")
def links() -> None:
    """Show the linked root keys; `kcm l1 link` links one."""


links.add_command(list_links)


@l1.command("status")
@click.option("--region", metavar="REGION", help="Only this region [default: all].", **once)
@common
def status(settings: Settings, region: str | None) -> int:
    """Show how many root keys each Core uses, and can use.

    With more root keys, a Core unloads the tenants with the oldest use, and loads them again at
    their next request. From 90 % on there is a warning.

    \b
    Exit codes: 0 every Core replied; 4 a Core did not reply; 5 no Core replied.

    Example: kcm l1 status --region eu-de
    """  # noqa: D301 - click wants the control character
    return run_async(key_use.status(settings, region))


@l1.command("link")
@click.argument("name", type=NAME, required=False)
@click.argument("uri", required=False)
@click.option(
    "--model",
    type=click.Choice(["byok", "hyok"]),
    help="byok (default): any key; hyok: shorter leases, for an HSM on the customer's premises.",
)
@click.option("--region", "regions", multiple=True, help="Only this region (repeatable).")
@revision_option
@common
def link(
    settings: Settings,
    name: str | None,
    uri: str | None,
    model: Model | None,
    regions: tuple[str, ...],
    revision: int,
) -> int:
    """Link a root key by its URI. The key itself stays where it is.

    A Core of each region first tests the key with its own credentials. Only a key that works is
    linked. On a terminal, the command asks for missing arguments, shows what to grant, and tests a
    refused key again after you have granted what is missing.

    Example: kcm l1 link acme-root softkey:/srv/keys/acme
    """
    settings.leaves("nothing was linked")
    if name is None or uri is None:
        if settings.json or not at_a_terminal():
            raise click.UsageError("name the link and the key: NAME URI")
        settings.context()  # report a bad context before the prompts
        answers = walk(name, uri, model)
        if answers is None:
            note(settings, "nothing was linked: give the same command when the key is granted")
            return Exit.OK
        name, uri, model = answers
    model = model or "byok"
    left = list(regions)
    done: dict[str, Linked] = {}
    while True:
        outcome = run_change(_link(settings, left, name, uri=uri, model=model, revision=revision))
        done |= {region: one for region, one in outcome.items() if not isinstance(one, Exception)}
        failed = {
            region: _explain(one) for region, one in outcome.items() if isinstance(one, Exception)
        }
        if not failed or not _try_again(settings, uri, failed):
            break
        left = list(failed)
    if not regions:
        failed |= _not_in_context(settings)
    _show(settings, name, done, failed)
    if not failed and (text := change.said(one.change for one in done.values())):
        note(settings, text, changed=False)
    for report in together(failed):
        show(report, as_json=settings.json)
    return min((report.exit_code for report in failed.values()), default=Exit.OK)


@dataclass(frozen=True, slots=True)
class Linked:
    """A region's reply to a link, and what the link changed there."""

    view: LinkView
    change: Change


async def _link(
    settings: Settings, regions: Sequence[str], name: str, **fields: Any
) -> dict[str, Linked | Exception]:
    """Link a key in some regions, or in all without a name. A failure is a region's result."""
    import asyncio

    from kcm._internal import statements

    context = settings.context()
    admin = settings.admin(context)
    raw = statements.link(admin.identity, name, **fields)

    async def one(region: str) -> Linked | Exception:
        try:
            before = await change.of_link(admin, region, name)
            with standing.asking(region):
                view = await admin.put_link(region, raw)
            return Linked(view, before.change(**fields))
        except Exception as error:  # noqa: BLE001 - each region has its own result
            return error

    try:
        chosen = [context.region(region) for region in regions] or context.in_order(None)
        standing = OrderState(settings, chosen, "kcm l1 list")
        return dict(zip(chosen, await asyncio.gather(*map(one, chosen)), strict=True))
    finally:
        await admin.close()


def _not_in_context(settings: Settings) -> dict[str, Report]:
    """Return the regions without the link because the context does not have them."""
    from kcm.ops.roster_changes import lacked

    context = settings.context()
    hint = "the same command with a context that has it"
    report = Report(Exit.PARTIAL, "not_in_context", "on the roster, not in this context", hint)
    return dict.fromkeys(lacked(context, context.verifier().roster), report)


def _try_again(settings: Settings, uri: str, failed: dict[str, Report]) -> bool:
    """On a terminal, show what is missing and ask whether it was granted; else return ``False``."""
    if settings.json or not at_a_terminal():
        return False
    refused = [report for report in failed.values() if report.exit_code is Exit.REFUSED]
    if not refused:
        return False
    from kcm.cli.providers import ask

    for report in together(failed):
        note(settings, report.detail)
    try:
        click.echo("\nGrant this to the key:\n\n" + ask("policy", uri)["policy"], err=True)
    except Problem:
        return False  # the providers are not installed here
    return click.confirm("Granted? Try again", default=True, err=True)


def _explain(error: Exception) -> Report:
    """Return the report of a failed link, with a hint about keys."""
    report = explain(error)
    if report.code == "malformed":  # the URI, which `kcm l1 check` refuses as wrong usage, too
        report = replace(report, exit_code=Exit.USAGE)
    if report.detail.startswith("the root key"):
        return replace(report, hint=ABOUT_KEYS)
    return report


def _show(
    settings: Settings, name: str, done: dict[str, Linked], failed: dict[str, Report]
) -> None:
    rows = [
        {
            "link": name,
            "region": region,
            "result": "ok",
            "change": one.change,
            "mechanism": one.view.mechanism,
            "key_version": one.view.key_version,
            "as": one.view.principal,
            "ms": one.view.ms,
        }
        for region, one in sorted(done.items())
    ] + [
        {
            "link": name,
            "region": region,
            "result": report.code,
            "change": "",
            "mechanism": "",
            "key_version": "",
            "as": "",
            "ms": "",
        }
        for region, report in sorted(failed.items())
    ]
    emit(settings, rows, tuple(rows[0]), [tuple(row.values()) for row in rows])
