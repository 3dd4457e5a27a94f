"""A kill whose context every broker refuses ends at once; with any hope it goes on."""

import copy
import json
import pickle
from collections.abc import Iterator

import pytest
from kcm._internal.admin import Admin
from kcm._internal.client_context import ContextError, NotLetIn
from kcm._internal.kills import Kills
from kcm._internal.staggered import first
from kcm.cli.main import run
from kcm.errors import ServiceError, Unavailable
from kcm.exit_codes import Exit
from kcm_runtime.config import BusAddress
from kcm_runtime.nats.connect_failures import REJECTED_TIMES, Failure, Failures, Reason

from tests.fakes.client import FakeCore, FakeGateway
from tests.unit.operator_rig import Cores, Desk


class Brokers:
    """The brokers of a system; each may refuse, or be down, for some attempts."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.refuse: dict[str, Iterator[ServiceError | None]] = {}
        self.attempts = 0

    async def open(self, address: BusAddress, name: str) -> FakeGateway | FakeCore:
        self.attempts += 1
        region = address.url.removeprefix("nats://")
        error = next(self.refuse.get(region, iter(())), None)
        if error is not None:
            raise error
        return await self.desk.system.open(address, name)

    def run(self, *arguments: str) -> int:
        system = self.desk.system
        line = [*arguments, "--context", str(system.context_file), "-o", "json"]
        return run(line, self.open, system.clock.around())


@pytest.fixture
def brokers(desk: Desk) -> Brokers:
    return Brokers(desk)


def always(error: ServiceError) -> Iterator[ServiceError]:
    while True:
        yield error


def times(number: int, error: ServiceError) -> Iterator[ServiceError]:
    yield from [error] * number


def rejected(region: str) -> NotLetIn:
    return NotLetIn(f"the broker at {region} rejects operator", f"see {region}.password")


KILLS = [("kill", "acme"), ("region", "retire", "us", "--reason", "lost")]


@pytest.mark.parametrize("command", KILLS, ids=" ".join)
def test_a_context_that_every_broker_refuses_ends_a_kill_at_once(
    brokers: Brokers, cores: Cores, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    brokers.refuse = {region: always(rejected(region)) for region in ("eu", "us")}
    since = cores.system.clock.now
    assert brokers.run(*command) == Exit.USAGE
    said = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert said["error"] == "context"
    assert said["detail"].startswith("no hold was placed: ")
    for region in ("eu", "us"):
        assert f"the broker at {region} rejects operator" in said["detail"]
        assert f"see {region}.password" in said["hint"]
    assert cores.system.clock.now == since
    assert brokers.attempts <= 4


@pytest.mark.parametrize("command", KILLS, ids=" ".join)
def test_a_kill_goes_on_while_one_region_may_still_be_reached(
    brokers: Brokers, cores: Cores, command: tuple[str, ...]
) -> None:
    away = times(4, Unavailable("no program listens"))
    brokers.refuse = {"us": always(rejected("us")), "eu": away}
    assert brokers.run(*command) == Exit.OK
    assert len(cores.held) == 1


def test_what_may_pass_is_tried_again(brokers: Brokers, cores: Cores) -> None:
    """A broker that starts behind TLS may end the handshake."""
    for region in ("eu", "us"):
        brokers.refuse[region] = times(4, NotLetIn("no TLS", "check the port", may_pass=True))
    assert brokers.run("kill", "acme") == Exit.OK


def test_a_kill_that_may_have_been_sent_is_not_said_to_be_unsent(
    brokers: Brokers, cores: Cores, capsys: pytest.CaptureFixture[str]
) -> None:
    def then_refused() -> Iterator[ServiceError]:
        yield from times(4, Unavailable("the connection was lost"))
        yield from always(rejected("eu"))

    brokers.refuse = {"us": always(rejected("us")), "eu": then_refused()}
    assert brokers.run("kill", "acme", "--timeout", "30") == Exit.UNAVAILABLE
    said = capsys.readouterr().err
    assert "no hold was placed" not in said
    assert "The hold may be in force" in said


@pytest.mark.parametrize("command", [("lift", "ab", "--reason", "x"), ("hold", "list")])
def test_other_orders_name_the_context_and_the_hint_of_each_broker(
    brokers: Brokers, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    brokers.refuse = {region: always(rejected(region)) for region in ("eu", "us")}
    assert brokers.run(*command) == Exit.USAGE
    assert json.loads(capsys.readouterr().err)["hint"] == "see eu.password; see us.password"


async def test_a_refusal_of_one_broker_is_none_of_all(brokers: Brokers) -> None:
    async def ask(region: str) -> None:
        raise rejected("eu") if region == "eu" else Unavailable("no program listens")

    with pytest.raises(Unavailable) as caught:
        await first(["eu", "us"], ask)
    assert not isinstance(caught.value, ContextError)


async def test_a_placement_ends_with_the_refusal_of_all(desk: Desk, brokers: Brokers) -> None:
    brokers.refuse = {region: always(rejected(region)) for region in ("eu", "us")}
    clock = desk.system.clock
    async with Admin.open(desk.system.context(), opener=brokers.open, around=clock.around()) as one:
        kills = Kills(one, ["eu", "us"])
        with pytest.raises(NotLetIn):
            await kills.place(kills.make("tenant", "acme", ""), clock.now + 90)


def test_a_refusal_is_copied_as_a_whole() -> None:
    error = NotLetIn("text", "hint", may_pass=True)
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (copied.detail, copied.hint, copied.may_pass) == ("text", "hint", True)


def test_a_login_is_rejected_for_good_after_some_attempts_at_each_node() -> None:
    failures, login = Failures(2), Failure(Reason.LOGIN)
    assert failures.note(Failure(Reason.OTHER), None) == Failure(Reason.OTHER)
    for _ in range(2 * REJECTED_TIMES):
        assert not failures.rejected.is_set()
        assert failures.note(login, Failure(Reason.OTHER)) == login
        assert failures.note(Failure(Reason.OTHER), login) == login
    assert failures.rejected.is_set()
    assert failures.note(Failure(Reason.SILENT), login) == Failure(Reason.SILENT)
