"""``compose.yaml`` on an engine: it serves, a kill is complete, a broker and an HSM come back.

The tests are steps of one course and run in this order: the system is the same in all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from .lane import COMPOSE, PROJECT, ROOT, System, error_of, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REFUSED = 3
"""The command's exit code for a refusal."""
DOCUMENT = (ROOT / "docs" / "deployment.md").read_text()
PLAIN = (ROOT / "README.md").read_bytes()
DATA = ("--tenant", "main", "--service", "docs")
HSM_URI = (
    "pkcs11:token=kcm;object=root;type=private?module-path=/usr/lib/kcm/hsm.so"
    "&pin-source=file:/run/kcm-softhsm/pin"
)
INSTANCES = {
    f"{name}-{region}-{number}"
    for region in ("eu-de", "us-east")
    for name, number in (("core", 1), ("core", 2), ("gateway", 1))
}
"""The instances that have to purge before a kill is complete."""


def decrypted(system: System, sealed: bytes, tenant: str = "main") -> bool:
    """Whether the record opens to what it was, now."""
    done = system.asked("decrypt", "-", "--tenant", tenant, "--service", "docs", given=sealed)
    return done.returncode == 0 and done.stdout == PLAIN


@pytest.fixture(scope="module")
def sealed(system: System) -> bytes:
    """A record of the tenant ``main``, whose root key is in a file."""
    uri = system.kcm("dev", "key", "main", "--kind", "softkey", "--dir", "/customer", "--uri")
    system.kcm("l1", "link", "main-root", uri.decode().strip())
    system.kcm("tenant", "create", "main", "--link", "main-root")
    system.kcm("service", "create", "main", "docs")
    grants = ("--grant", "main/docs", "--grant", "hsm/docs")
    if system.asked("app", "create", "app", *grants).returncode:
        system.kcm("app", "change", "app", *grants)  # another test has created it
    return system.kcm("encrypt", "-", *DATA, given=PLAIN)


def test_every_container_runs_as_the_file_says(system: System) -> None:
    for name, service in COMPOSE["services"].items():
        if name in {"cli", "softhsm"}:
            continue
        found = system.container(name)
        host, state = found.attrs["HostConfig"], found.attrs["State"]
        assert found.attrs["Config"]["User"] == "10001:10001", name
        assert host["ReadonlyRootfs"] is True, name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["PidsLimit"] == service["pids_limit"], name
        if service["restart"] == "no":
            assert (state["Status"], state["ExitCode"]) == ("exited", 0), name
        else:
            assert found.attrs["RestartCount"] == 0, system.why(name)
            status = found.exec_run(["grep", "-E", "^(CapEff|NoNewPrivs|Uid):", "/proc/1/status"])
            text = " ".join(status.output.decode().split())
            assert "Uid: 10001 10001" in text, name
            assert "CapEff: 0000000000000000" in text, name
            assert "NoNewPrivs: 1" in text, name


def test_a_region_reaches_no_other_broker_than_its_own(system: System) -> None:
    """Probed by address, so that the networks are tested and not only their names."""
    probe = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

    def reaches(service: str, host: str, network: str, port: int) -> bool:
        networks = system.container(host).attrs["NetworkSettings"]["Networks"]
        address = networks[f"{PROJECT}_{network}"]["IPAddress"]
        command = ["python", "-c", probe, address, str(port)]
        return system.container(service).exec_run(command).exit_code == 0

    assert reaches("eu-de-core-1", "nats-eu-de", "eu-de", 4222)
    assert reaches("us-east-core-1", "nats-us-east", "us-east", 4222)
    assert reaches("nats-eu-de", "backbone", "backbone", 7422)
    assert not reaches("eu-de-core-1", "nats-us-east", "us-east", 4222)
    assert not reaches("eu-de-core-1", "nats-us-east", "backbone", 4222)
    assert not reaches("eu-de-core-1", "backbone", "backbone", 7422)


def test_the_documented_commands_do_what_the_document_says(
    system: System, docker_command: Path, tmp_path: Path
) -> None:
    """The block as a reader copies it: a customer, a kill, a lift."""
    start = DOCUMENT.index("Create a customer with a root key in a file")
    block = DOCUMENT[DOCUMENT.index("```sh\n", start) + 6 :].partition("```")[0]
    (tmp_path / "docker").symlink_to(docker_command)
    # Each line has to work up to the kill; after it, one of them is refused, as the block says.
    script = "set -eo pipefail\n" + block.replace("kcm kill", "set +e; kcm kill")
    done = subprocess.run(
        ["bash", "-c", script.replace("readme.kcm", str(tmp_path / "readme.kcm"))],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "same\n" in done.stdout, done.stderr
    assert '"complete":true' in done.stdout.replace(" ", ""), done.stdout
    assert '"tenant_killed"' in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    assert "hold.lifted" in done.stdout
    assert (tmp_path / "readme.kcm").stat().st_size > 0


def test_a_kill_is_complete_and_a_lift_takes_it_back(system: System, sealed: bytes) -> None:
    assert decrypted(system, sealed)
    status = json.loads(system.kcm("kill", "main", "--reason", "a test", "-o", "json"))
    assert status["complete"] is True
    assert {each["instance"] for each in status["incarnations"]} >= INSTANCES
    assert system.refusal("decrypt", "-", *DATA, given=sealed, code=REFUSED) == "tenant_killed"
    system.kcm("lift", status["hold_id"], "--reason", "over")
    until(lambda: decrypted(system, sealed), "the tenant is served again")


def test_a_broker_that_is_killed_comes_back_with_what_it_had(system: System, sealed: bytes) -> None:
    held = json.loads(system.kcm("kill", "main", "--reason", "before", "-o", "json"))
    assert held["complete"] is True
    before = system.container("nats-eu-de").attrs
    system.crash("nats-eu-de")
    until(
        lambda: system.container("nats-eu-de").attrs["RestartCount"] == before["RestartCount"] + 1,
        "the engine started the broker again",
    )
    system.serves("nats-eu-de")
    after = system.container("nats-eu-de").attrs
    assert after["Id"] == before["Id"]
    assert after["State"]["Pid"] != before["State"]["Pid"]
    until(lambda: system.asked("tenant", "list").returncode == 0, "the region answers")
    assert system.refusal("decrypt", "-", *DATA, given=sealed, code=REFUSED) == "tenant_killed"
    system.kcm("lift", held["hold_id"], "--reason", "over")
    until(lambda: decrypted(system, sealed), "what was sealed before the crash opens")
    again = json.loads(system.kcm("kill", "main", "--reason", "after", "-o", "json"))
    assert again["complete"] is True
    system.kcm("lift", again["hold_id"], "--reason", "over")


def test_the_token_is_in_a_container_of_its_own_and_nothing_opens_without_it(
    system: System, sealed: bytes
) -> None:
    system.up("softhsm", core="core-softhsm")
    assert system.container("eu-de-core-1").image.tags == ["kcm-core-softhsm:latest"]
    core = system.container("eu-de-core-1")
    looked = "test -S /run/kcm-softhsm/pkcs11 && ! ls /var/lib/kcm-softhsm/* /usr/lib/softhsm"
    assert core.exec_run(["sh", "-c", looked]).exit_code == 0
    until(lambda: decrypted(system, sealed), "Cores of the other image serve what was there")

    system.kcm("l1", "link", "hsm-root", "--model", "hyok", HSM_URI)
    system.kcm("tenant", "create", "hsm", "--link", "hsm-root")
    system.kcm("service", "create", "hsm", "docs")
    data = ("--tenant", "hsm", "--service", "docs")
    record = system.kcm("encrypt", "-", *data, given=PLAIN)
    assert decrypted(system, record, "hsm")

    hsm = system.container("softhsm")
    hsm.stop(timeout=5)
    refused = until(
        lambda: (done := system.asked("decrypt", "-", *data, given=record)).returncode and done,
        "the tenant is sealed without its HSM",
    )
    assert error_of(refused) == "tenant_unavailable"
    assert decrypted(system, sealed), "the tenant of the other key is served"
    hsm.start()
    system.serves("softhsm")
    until(lambda: decrypted(system, record, "hsm"), "the tenant is served again")
    killed = json.loads(system.kcm("kill", "--link", "hsm-root", "-o", "json"))
    assert killed["complete"] is True
    assert system.refusal("decrypt", "-", *data, given=record, code=REFUSED) == "tenant_killed"


def test_the_journal_of_it_all_is_sound(system: System) -> None:
    for region in ("eu-de", "us-east"):
        done = system.container(f"{region}-auditor-1").exec_run(
            ["python", "-m", "kcm_auditor", "--verify", "/var/lib/kcm/journal",
             "--config", "/etc/kcm/config.toml"]
        )  # fmt: skip
        assert done.exit_code == 0, done.output.decode()
    assert PROJECT in system.container("backbone").name
