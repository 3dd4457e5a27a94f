"""The client's context: its files, its brokers, and its roster."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kcm._internal.client_context import ClientContext, ContextError
from kcm_broker.roles import Account
from kcm_runtime.config import BusAddress
from kcm_schemas import limits
from kcm_schemas.roster import Roster
from kcm_trust.verify import STATEMENT_MAX, Untrusted

from kcm_deployment.doctor.finding import Finding, bad, good, unknown
from kcm_deployment.doctor.plan import Address, Kind, Named, Plan

_NEW_ROSTER: Final = "copy the signed roster of the system there; `kcm roster show` shows it"


def plan_of(context: ClientContext, now_ms: int) -> Plan:
    """Return what is to be checked of a context, with the findings about its roster."""
    addresses = _addresses(context)
    kinds: dict[Path, Kind] = dict.fromkeys(context.files, Kind.SECRET)
    for bus in (one.bus for one in addresses):
        kinds |= {bus.login_file: Kind.CREDENTIALS} if bus.credentials else {}
        kinds |= {bus.ca: Kind.CERTIFICATE} if bus.ca else {}
    kinds |= dict.fromkeys((context.path, context.roster_path), Kind.PUBLIC)
    named = (Named(_key(one, context), one, kind) for one, kind in kinds.items())
    return Plan("context", tuple(named), addresses, check_roster(context, now_ms))


def check_roster(context: ClientContext, now_ms: int) -> tuple[Finding, ...]:
    """Verify the roster by the pinned root, without storing it as seen."""
    path = context.roster_path
    try:
        with path.open("rb") as file:
            roster = context.believe(file.read(STATEMENT_MAX + 1))
    except OSError as error:
        return (unknown("roster-trust", f"cannot read {path}: {error.strerror}", _NEW_ROSTER),)
    except Untrusted as error:
        fix = (
            "compare `root_public` with the owner of the operator root; then copy the roster again"
        )
        return (bad("roster-trust", f"the roster {path} is not trusted: {error}", fix),)
    if roster.system != context.system:
        text = f"the roster {path} is of another system"
        return (bad("roster-trust", text, _NEW_ROSTER),)
    trusted = f"version {roster.version} of the roster is signed by the pinned root"
    found = [good("roster-trust", trusted), check_issued(roster, now_ms)]
    return (*found, *_operator(context, roster))


def check_issued(roster: Roster, now_ms: int) -> Finding:
    """Compare the clock with the time at which the roster was signed."""
    if roster.issued_ms > now_ms + limits.SKEW_MS:
        text = "the roster was signed later than this machine's clock shows"
        return bad("roster-time", text, "set the clock: `timedatectl set-ntp true`")
    return good("roster-time", "the roster was signed before now")


def _operator(context: ClientContext, roster: Roster) -> tuple[Finding, ...]:
    """Look for the operator's key on the roster."""
    name = context.operator_name
    if not name:
        return ()
    found = next((one for one in roster.operators if one.operator == name), None)
    if found is None or found.retired is not None:
        text = f"the operator {name} is {'retired' if found else 'not on the roster'}"
        fix = "name another operator in the context, or sign a roster with this one"
        return (bad("operator", text, fix),)
    try:
        own = context.identity().public
    except ContextError as error:
        return (unknown("operator", str(error), error.hint or "correct the context"),)
    if own != found.public_key:
        text = f"the key of the operator {name} is not the one on the roster"
        return (bad("operator", text, "name the file of the right key as `key` of `[operator]`"),)
    return (good("operator", f"the key of the operator {name} is on the roster"),)


def _addresses(context: ClientContext) -> tuple[Address, ...]:
    found = []
    for region in sorted(context.regions):
        logins: dict[str, BusAddress] = {}
        if context.app_credentials(region) is not None:
            logins["app"] = context.app_address(region)
        if context.operator_name:
            logins["operator"] = context.operator_address(region)
        found += [
            Address(f"{region} {login}", bus, region, Account.REGION)
            for login, bus in logins.items()
        ]
    return tuple(found)


def _key(path: Path, context: ClientContext) -> str:
    """Return the name of the check of a file."""
    named = {context.path: "context", context.roster_path: "roster"}
    return named.get(path, path.name)
