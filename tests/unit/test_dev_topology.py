"""Planning and starting brokers: ports, passwords, and what happens when a port is taken."""

import socket

import pytest
from kcm_devsystem import ports, topology
from kcm_devsystem.broker_users import Users
from kcm_devsystem.brokers import Account, Permissions, Role, Rule
from kcm_devsystem.errors import DevError, ProcessDiedError
from kcm_devsystem.processes import is_running, stop
from kcm_devsystem.state import Entry


def test_a_plan_keeps_its_passwords_and_gives_each_user_its_own(tmp_path):
    first = topology.plan(tmp_path, ["eu-de", "us-east"])
    second = topology.plan(tmp_path, ["eu-de", "us-east"])
    passwords = [
        login.password for plan in (first, second) for spec in plan.regions for login in spec.users
    ] + [leaf.password for plan in (first, second) for leaf in plan.backbone.leaves]
    assert len(set(passwords)) == len(passwords) / 2 == 2 * 8 + 2
    with pytest.raises(DevError):
        first.region("ap-south")


def test_what_the_users_may_do_is_asked_for_each(tmp_path):
    def permissions(region: str, role: Role, account: Account) -> Permissions | None:
        return Permissions(publish=Rule(deny=(f"{region}.{role}.{account}",)))

    plan = topology.plan(tmp_path, ["eu-de"], Users(permissions))
    login = plan.region("eu-de").login(Role.GATEWAY, Account.CONTROL)
    assert login.permissions == Permissions(publish=Rule(deny=("eu-de.gateway.CONTROL",)))


def test_what_is_written_is_for_its_owner_alone(tmp_path):
    topology.write_configs(topology.plan(tmp_path, ["eu-de"]))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"backbone.conf", "eu-de.conf", "core"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize("name", ["../x", "EU", "ctl"])
def test_a_bad_region_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(DevError):
        topology.plan(tmp_path, ["eu-de", name])
    assert list(tmp_path.iterdir()) == []


def test_ports_are_free_different_and_out_of_the_kernels_way():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        drawn = ports.draw(20)
        assert len(set(drawn)) == 20
        assert taken.getsockname()[1] not in drawn
    assert all(port in ports.RANGE for port in drawn)
    with pytest.raises(DevError):
        ports.draw(ports.DRAWS_MAX + 1)


def test_a_broker_whose_port_is_taken_does_not_count_as_ready(tmp_path):
    """Somebody accepts on the port, but it is not the broker."""
    plan = topology.plan(tmp_path, ["eu-de"])
    topology.write_configs(plan)
    with (
        socket.create_server(("127.0.0.1", plan.region("eu-de").port)),
        pytest.raises(ProcessDiedError, match="address already in use"),
    ):
        topology.start_broker(plan, "eu-de", die_with_parent=True)


class Thief:
    """Takes a broker's port between its drawing and its use, a number of times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.sockets: list[socket.socket] = []
        self.entries: list[Entry] = []

    def record(self, entry: Entry) -> None:
        self.entries.append(entry)

    def draw(self, count: int) -> tuple[int, ...]:
        drawn = ports.draw(count)
        if self.times:
            self.times -= 1
            self.sockets.append(socket.create_server(("127.0.0.1", drawn[-1])))
        return drawn

    def close(self) -> None:
        for taken in self.sockets:
            taken.close()


def test_when_somebody_is_faster_everything_is_drawn_anew(tmp_path):
    thief = Thief(topology.STARTS_MAX - 1)
    try:
        _, entries = topology.start(
            tmp_path,
            ["eu-de"],
            die_with_parent=True,
            addresses=topology.Addresses(draw=thief.draw),
            steps=topology.Steps(record=thief.record),
        )
        running = [entry.process for entry in entries]
        assert [process.name for process in running] == ["backbone", "eu-de"]
        assert all(is_running(process) for process in running)
        earlier = [e.process for e in thief.entries if e.process not in running]
        assert earlier
        assert not any(is_running(process) for process in earlier)
        stop(running)
    finally:
        thief.close()


def test_when_somebody_is_always_faster_nothing_is_left_running(tmp_path):
    thief = Thief(topology.STARTS_MAX)
    try:
        with pytest.raises(ProcessDiedError):
            topology.start(
                tmp_path,
                ["eu-de"],
                die_with_parent=True,
                addresses=topology.Addresses(draw=thief.draw),
                steps=topology.Steps(record=thief.record),
            )
        assert len(thief.entries) >= topology.STARTS_MAX
        assert not any(is_running(entry.process) for entry in thief.entries)
    finally:
        thief.close()
