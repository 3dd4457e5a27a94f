"""The job that makes a region's streams, against a real broker."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm.ops.errors import NotProvisionedError, ProvisionError
from kcm_broker.roles import Account, Role
from kcm_deployment import settings_files
from kcm_deployment.broker_files import SETUP
from kcm_devsystem import ports, processes, setup, topology
from kcm_devsystem.broker_users import Users
from kcm_devsystem.configs import bus_files, visitor
from kcm_devsystem.topology import Topology
from kcm_runtime.config import load
from kcm_runtime.nats.provision import VAULT_STREAMS
from kcm_runtime.toml_text import to_toml
from kcm_schemas import subjects

from tests.integration.living import connected

REGION = "eu-de"
STREAMS = {
    subjects.CONTROL_STREAM,
    subjects.AUDIT_STREAM,
    subjects.bucket_stream(subjects.KEYS_BUCKET),
    subjects.bucket_stream(subjects.REGISTRY_BUCKET),
    subjects.bucket_stream(subjects.RESULTS_BUCKET),
}


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Topology]:
    plan, entries = topology.start(
        tmp_path, [REGION], die_with_parent=True, users=Users(visitor=True)
    )
    yield plan
    processes.stop([entry.process for entry in entries])


def config_of(plan: Topology, *, replicas: int = 1, url: str = "") -> Path:
    """Write what the job reads; ``url`` is another broker than the region's."""
    buses = (
        bus_files(plan, REGION, Role.PROVISIONER, account, SETUP)
        for account in (Account.REGION, Account.VAULT)
    )
    if url:
        buses = (replace(one, urls=[url]) for one in buses)
    path = plan.root / "provision.toml"
    path.write_text(to_toml(settings_files.provisioning(REGION, *buses, SETUP, replicas)))
    return path


async def streams(plan: Topology) -> dict[str, int]:
    """Every stream of the region with its time of creation, in microseconds."""
    found: dict[str, int] = {}
    for account in (Account.REGION, Account.VAULT):
        async with connected(visitor(plan, REGION, account)) as connection:
            for info in await connection.jetstream().streams_info():
                name = info.config.name or ""
                assert (name in VAULT_STREAMS) == (account is Account.VAULT)
                found[name] = round(info.created.timestamp() * 1e6) if info.created else 0
    return found


async def test_it_makes_what_is_missing_and_leaves_what_exists(brokers):
    config = load(setup.ProvisionConfig, str(config_of(brokers)))
    await setup.provision(config)
    made = await streams(brokers)
    assert set(made) == STREAMS
    assert all(made.values())
    await setup.provision(config)
    assert await streams(brokers) == made


async def test_too_few_servers_for_the_replicas_are_an_error_and_not_fewer_replicas(brokers):
    config = load(setup.ProvisionConfig, str(config_of(brokers, replicas=3)))
    with pytest.raises(ProvisionError, match="eu-de could not be provisioned: JetStream"):
        await setup.provision(config, within_s=3)
    assert await streams(brokers) == {}


async def test_a_broker_that_does_not_come_up_is_waited_for_and_then_told(brokers):
    (port,) = ports.draw(1)
    config = load(setup.ProvisionConfig, str(config_of(brokers, url=f"tls://127.0.0.1:{port}")))
    told: list[str] = []
    with pytest.raises(NotProvisionedError, match=f"no program listens at tls://127.0.0.1:{port}"):
        await setup.provision(config, within_s=1, tell=told.append, tell_s=0.1)
    assert len(told) == 1
    assert "no program listens" in told[0]


def test_the_commands_code_says_that_a_retry_may_help(brokers, capsys):
    (port,) = ports.draw(1)
    config = str(config_of(brokers, url=f"tls://127.0.0.1:{port}"))
    code = run(["region", "provision", "--config", config, "--timeout", "1", "-o", "json"])
    assert code == Exit.UNAVAILABLE
    assert json.loads(capsys.readouterr().err)["error"] == "unavailable"


def test_the_command_says_that_it_is_done(brokers, capsys):
    assert setup.main(["provision", "--config", str(config_of(brokers))]) == 0
    assert "eu-de has its streams and buckets" in capsys.readouterr().err
