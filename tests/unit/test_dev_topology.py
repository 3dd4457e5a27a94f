"""Planning and starting brokers: ports, keys, and what happens when a port is taken."""

import base64
import json
import socket
from pathlib import Path

import pytest
from kcm_deployment.broker_files import IN_REGION
from kcm_deployment.members import Member
from kcm_devsystem import ports, topology
from kcm_devsystem.broker_users import VISITOR, Users, visitor_file
from kcm_devsystem.errors import DevError, ProcessDiedError
from kcm_devsystem.processes import is_running, stop
from kcm_devsystem.state import Entry
from kcm_runtime.nats import credentials
from kcm_schemas.roster import Role


def tree(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_plan_keeps_its_keys_and_gives_each_user_its_own(tmp_path):
    members = [Member(role, "eu-de", n) for role in (Role.CORE, Role.GATEWAY) for n in (1, 2)]
    users = Users((*members, Member(Role.AUDITOR, "us-east", 1)))
    first = topology.plan(tmp_path, ["eu-de", "us-east"], users)
    before = tree(tmp_path)
    topology.plan(tmp_path, ["eu-de", "us-east"], users)
    assert tree(tmp_path) == before
    files = list((tmp_path / "users").rglob("*.creds"))
    # Two Cores in three accounts, two Gateways in two, an Auditor in each region; in each region
    # two operators, the application, the setup in three accounts, and the link.
    assert len(files) == 2 * 3 + 2 * 2 + 2 + 2 * (2 + 1 + 3 + 1)
    assert len({credentials.read(path).key.public for path in files}) == len(files)
    with pytest.raises(DevError):
        first.region("ap-south")


def test_a_visitor_is_let_in_only_where_it_is_asked_for(tmp_path):
    for visitor in (False, True):
        root = tmp_path / str(visitor)
        plan = topology.plan(root, ["eu-de"], Users(visitor=visitor))
        trust = plan.brokers.trust("eu-de", root / "accounts")
        bodies = [json.loads(_part(token)) for token in trust.preload.values()]
        roles = {key["role"] for body in bodies for key in body["nats"].get("signing_keys", [])}
        assert (VISITOR in roles) is visitor
        for account in IN_REGION:
            assert visitor_file(root, "eu-de", account).exists() is visitor


def _part(token: str) -> bytes:
    body = token.split(".")[1]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def test_what_is_written_is_for_its_owner_alone(tmp_path):
    topology.write_configs(topology.plan(tmp_path, ["eu-de"]))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"backbone.conf", "eu-de.conf", "ca.key", "signers"}
    public = {".pem", ".jwt"}
    secret = {path for path in files if path.suffix not in public}
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}


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
