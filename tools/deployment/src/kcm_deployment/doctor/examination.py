"""All checks of a plan. Each ends in bounded time, and none keeps another one from running."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from kcm_runtime.clock import Clock
from kcm_runtime.config import BusAddress
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats import credentials
from kcm_schemas.codes import KcmError

from kcm_deployment.doctor.checks import login as logins
from kcm_deployment.doctor.checks.certificates import check_certificate_file
from kcm_deployment.doctor.checks.files import check_file
from kcm_deployment.doctor.checks.permissions import attempts, judge
from kcm_deployment.doctor.checks.tokens import check_token
from kcm_deployment.doctor.checks.wire import check_wire
from kcm_deployment.doctor.file_facts import FileFacts, read_file_facts
from kcm_deployment.doctor.finding import Finding, State, Subject, bad, unknown
from kcm_deployment.doctor.plan import Address, Kind, Named, Plan
from kcm_deployment.doctor.session import NoLogin, logged_in
from kcm_deployment.doctor.streams import check_all_streams
from kcm_deployment.doctor.wire import Place, look

ALL_S: Final = 60.0
"""Seconds for all checks of one address: each step of them has a shorter bound of its own."""

_BROKEN: Final = "read `kcm doctor -vv`, and report this as a fault of the command"


async def examine(plan: Plan, clock: Clock) -> list[Subject]:
    """Return the findings about a plan: its files, then each of its addresses."""
    files = [*plan.findings]
    owners = _owners(plan)
    for named in plan.files:
        files += check_named(named, owners, clock.unix_ms())
    about = [_about(plan, address, clock) for address in plan.addresses]
    found = await asyncio.gather(*about)
    return [Subject(plan.name, tuple(files)), *(one for each in found for one in each)]


def check_named(named: Named, owners: frozenset[int], now_ms: int) -> list[Finding]:
    """Return the findings about one file, its content included where that is no secret."""
    try:
        facts = read_file_facts(named.path)
    except OSError as error:
        facts = FileFacts(named.path, os.strerror(error.errno or 0))
    found = [*check_file(named, facts, owners)]
    if facts.error or facts.directory:
        return found
    if named.kind is Kind.CERTIFICATE:
        found += _certificate(named, now_ms)
    if named.kind is Kind.CREDENTIALS:
        found.append(_token(named.path, now_ms))
    return found


async def _about(plan: Plan, address: Address, clock: Clock) -> list[Subject]:
    """Check each node of an address, then its streams if one of them accepts the login."""
    nodes = [address.bus.model_copy(update={"url": url, "also": ()}) for url in address.bus.urls]
    found = await asyncio.gather(*(_node(address, bus, clock) for bus in nodes))
    subjects = [
        Subject(f"{plan.name}, {address.name}, {shown(bus.url)}", findings)
        for bus, findings in zip(nodes, found, strict=True)
    ]
    accepted = any(one.check == "login" and one.state is State.OK for each in found for one in each)
    if not address.streams and any(one.streams for one in plan.addresses):
        return subjects  # another login sees more
    streams: tuple[Finding, ...] = (logins.not_tried("streams"),)
    if accepted:
        streams = await guarded("streams", lambda: check_all_streams(address, clock))
    return [*subjects, Subject(f"{plan.name}, {address.name}, streams", streams)]


async def _node(address: Address, bus: BusAddress, clock: Clock) -> tuple[Finding, ...]:
    async def wire() -> tuple[Finding, ...]:
        try:
            place = Place.of(bus.url, bus.ca)
        except ValueError:
            text = "the url is not the address of a broker"
            return (bad("reach", text, "correct it: tls://HOST:PORT"),)
        return check_wire(await look(place), _moment(clock.unix_ms()))

    first = await guarded("reach", wire)
    if any(one.check == "reach" and one.state is not State.OK for one in first):
        return first
    return (*first, *await guarded("login", lambda: _session(address, bus)))


async def _session(address: Address, bus: BusAddress) -> tuple[Finding, ...]:
    """Log in, and try what must be refused."""
    tried = attempts(address.role)
    try:
        async with logged_in(bus) as session:
            answers = [judge(one, await session.attempt(one)) for one in tried]
            return (logins.admitted(), *answers)
    except NoLogin as error:
        first = logins.rejected(error.failure)
    except SecretFileError as error:
        first = logins.unusable(str(error))
    return (first, *(logins.not_tried(one.check) for one in tried))


async def guarded(
    check: str, work: Callable[[], Awaitable[tuple[Finding, ...]]]
) -> tuple[Finding, ...]:
    """Run a check; a fault of it, or the end of its time, is a finding and no exception."""
    try:
        async with asyncio.timeout(ALL_S):
            return await work()
    except TimeoutError:
        text = f"the check did not end within {ALL_S:.0f} s"
        return (unknown(check, text, "check again when the broker answers in time"),)
    except Exception as error:  # noqa: BLE001 - the other checks must run
        return (unknown(check, f"the check itself failed: {type(error).__name__}", _BROKEN),)


def shown(url: str) -> str:
    """Return an address without a user name and a password in it."""
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def _owners(plan: Plan) -> frozenset[int]:
    """Return the users that may own a file: root, this user, and the owner of the state."""
    found = {0, os.geteuid()}
    for named in plan.files:
        if named.kind is Kind.STATE and named.path.is_dir():
            found.add(named.path.stat().st_uid)
    return frozenset(found)


def _certificate(named: Named, now_ms: int) -> list[Finding]:
    try:
        pem = named.path.read_bytes()
    except OSError as error:
        text = f"cannot read {named.path}: {error.strerror}"
        return [unknown(named.key, text, "run the command as root")]
    return [check_certificate_file(named, pem, _moment(now_ms))]


def _token(path: Path, now_ms: int) -> Finding:
    try:
        token = credentials.read(path).token
    except (SecretFileError, KcmError) as error:
        return logins.unusable(str(error))
    return check_token("token", token, now_ms // 1000)


def _moment(unix_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC)
