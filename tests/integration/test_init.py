"""What ``kcm init`` writes is a system that runs, with TLS, credentials and permissions."""

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kcm.exit_codes import Exit
from kcm_deployment.layouts import CLIENT_PORT, LEAF_PORT, SYSTEMD
from kcm_deployment.members import Member
from kcm_devsystem import ports, processes
from kcm_devsystem.processes import ReadyFile
from kcm_devsystem.server_binary import nats_server_binary
from kcm_schemas.roster import Role

HOST = "127.0.0.1"
REGION = "eu"
PLAN = f"""
version = 1
system = "acme"
[[operators]]
name = "alice"
roles = ["admin", "security"]
[backbone]
servers = ["{HOST}"]
[regions.{REGION}]
servers = ["{HOST}"]
cores = 1
"""
MEMBERS = [Member(role, REGION, 1) for role in (Role.CORE, Role.GATEWAY, Role.AUDITOR)]
MODULES = {Role.CORE: "kcm_core", Role.GATEWAY: "kcm_gateway", Role.AUDITOR: "kcm_auditor"}


@dataclass
class Machine:
    """One machine in place of all: the bundles' paths and ports lead to its directories."""

    directory: Path
    running: list = field(default_factory=list)

    def __post_init__(self):
        self.client, self.backbone, self.leaf = ports.draw(3)
        (self.directory / "plan.toml").write_text(PLAN)

    @property
    def bundles(self):
        return self.directory / "deployment"

    def kcm(self, *arguments, expect=Exit.OK):
        done = subprocess.run(
            [sys.executable, "-m", "kcm", *map(str, arguments), "-o", "json"],
            cwd=self.directory,
            env={"PATH": "/usr/bin", "HOME": str(self.directory)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == expect, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def init(self):
        made = self.kcm("init", "plan.toml")
        for path in self.bundles.glob("*/*/*.toml"):
            self.adapt(path, path.parent)
        return made

    def adapt(self, path, bundle):
        """Lead the paths and ports of a file to this machine."""
        text = path.read_text()
        for member in MEMBERS:
            place, run = SYSTEMD.place(member), self.directory / "run" / member.name
            run.mkdir(mode=0o700, parents=True, exist_ok=True)
            (run / "keys").mkdir(mode=0o700, exist_ok=True)
            for inside, outside in (
                (place.secrets, bundle),
                (place.public, bundle),
                (place.key_store, run / "keys"),
                (place.ready_file, run / "ready"),
                (place.state_dir, run / "state"),
                (place.journal, run / "journal"),
            ):
                text = text.replace(f'"{inside}/', f'"{outside}/')
                text = text.replace(f'"{inside}"', f'"{outside}"')
        text = text.replace(f":{CLIENT_PORT}", f":{self.client}")
        path.write_text(text)

    def start_server(self, bundle, port):
        run = self.directory / "run" / bundle.name
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = (bundle / "nats.conf").read_text()
        text = text.replace('"/etc/nats/', f'"{bundle}/').replace('"/var/lib/nats', f'"{run}')
        text = text.replace(f":{LEAF_PORT}", f":{self.leaf}")
        settings = json.loads(text) | {"host": HOST, "port": port, "ports_file_dir": str(run)}
        if "port" in settings.get("leafnodes", {}):
            settings["leafnodes"] |= {"host": HOST, "port": self.leaf}
        (run / "nats.conf").write_text(json.dumps(settings))
        argv = [str(nats_server_binary()), "--config", str(run / "nats.conf")]
        process = processes.spawn(bundle.name, argv, run / "log", {}, die_with_parent=True)
        self.running.append(process)
        processes.wait_ready(process, ReadyFile(run / f"nats-server_{process.pid}.ports"))

    def start(self, member):
        bundle = self.bundles / SYSTEMD.instance_bundle(member)
        run = self.directory / "run" / member.name
        ready = run / "ready"
        process = processes.spawn(
            member.name,
            [sys.executable, "-m", MODULES[member.role], "--config", str(bundle / "config.toml")],
            run / "log",
            {"PATH": "/usr/bin"},
            die_with_parent=True,
            ready_file=ready,
        )
        self.running.append(process)
        return process, ReadyFile(ready)

    def log(self, name):
        return (self.directory / "run" / name / "log").read_text()


@pytest.fixture
def machine(tmp_path):
    one = Machine(tmp_path)
    yield one
    processes.stop(list(reversed(one.running)))


def test_the_system_of_a_plan_serves_and_the_doctor_finds_nothing(machine):
    machine.init()
    machine.start_server(machine.bundles / "backbone" / "backbone-1", machine.backbone)
    machine.start_server(machine.bundles / REGION / f"{REGION}-1", machine.client)
    provision = machine.bundles / REGION / "provision" / "config.toml"
    machine.kcm("region", "provision", "--config", provision)
    for process, ready in [machine.start(member) for member in MEMBERS]:
        processes.wait_ready(process, ready)
    context = machine.bundles / "operators" / "alice" / "context.toml"
    (row,) = machine.kcm("region", "list", "--context", context)
    assert row["region"] == REGION

    configs = [machine.bundles / SYSTEMD.instance_bundle(one) / "config.toml" for one in MEMBERS]
    named = [part for one in (*configs, provision) for part in ("--config", one)]
    checked = machine.kcm("doctor", "--no-machine", "--context", context, *named)
    assert checked["ok"], checked
    assert len(checked["findings"]) > 50

    # What `--check` of an instance would refuse, the doctor finds.
    text = configs[0].read_text()
    other = str(configs[1].parent / "identity")
    for old, new, check in (
        ('region = "eu"', 'regionn = "eu"', "settings"),
        ('instance = "core-eu-1"', 'instance = "core-eu-7"', "name"),
        (str(configs[0].parent / "identity"), other, "key"),
        ('root_public = "', 'root_public = "00', "roster-trust"),
        ("_INBOX.core.core-eu-1", "_INBOX.core.core-eu-2", "inbox"),
    ):
        assert old in text, old
        changed = configs[0].with_name("changed.toml")
        changed.touch(mode=0o600)
        changed.write_text(text.replace(old, new))
        checked = machine.kcm(
            "doctor", "--no-machine", "--config", changed, expect=Exit.CHECK_FAILED
        )
        failed = {one["check"] for one in checked["findings"] if one["state"] == "fail"}
        assert check in failed, (check, failed)

    # A stolen Gateway: the broker lets its credentials in no more, and nobody else notices.
    gateway = MEMBERS[1].name
    machine.kcm(
        "broker", "revoke", "--dir", "deployment", "--region", REGION, "--instance", gateway
    )
    stolen = machine.bundles / REGION / gateway / "region-bus"
    old = stolen.read_bytes()
    machine.init()
    assert stolen.read_bytes() != old
    pushed = machine.kcm("broker", "push", machine.bundles / REGION / "push")
    assert {one["account"] for one in pushed} == {"region", "control", "vault", "system"}
    assert machine.kcm("broker", "push", machine.bundles / REGION / "push") == pushed
    # The process reads its new credentials at the next connection.
    until_line(machine, gateway, "connected to the broker again")
    assert "lost the broker" not in machine.log(MEMBERS[0].name)


def until_line(machine, name, text, within_s=30):
    import time

    until = time.monotonic() + within_s
    while text not in machine.log(name):
        assert time.monotonic() < until, machine.log(name)
        time.sleep(0.05)


def test_a_configuration_names_only_files_of_its_bundle_or_machine(machine):
    machine.kcm("init", "plan.toml")
    for member in MEMBERS:
        bundle = machine.bundles / SYSTEMD.instance_bundle(member)
        place = SYSTEMD.place(member)
        text = (bundle / "config.toml").read_text()
        inside = {str(place.secrets), str(place.public)}
        for value in paths_in(tomllib.loads(text)):
            if str(Path(value).parent) in inside:
                assert (bundle / Path(value).name).is_file(), value


def paths_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [path for one in value for path in paths_in(one)]
    return [value] if isinstance(value, str) and value.startswith("/") else []
