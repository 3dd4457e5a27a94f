"""The text of the brokers' configurations, and that the real server takes it."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kcm_broker.roles import Account
from kcm_devsystem import topology
from kcm_devsystem.brokers import region_name
from kcm_devsystem.errors import DevError
from kcm_devsystem.server_binary import nats_server_binary
from kcm_devsystem.topology import Topology

REGIONS = ("eu-de", "us-east")


@pytest.fixture
def plan(tmp_path: Path) -> Topology:
    return topology.plan(tmp_path, REGIONS)


def written(plan: Topology, name: str) -> dict[str, Any]:
    """Return what a server's configuration says."""
    topology.write_configs(plan)
    return json.loads(topology.config_path(plan.root, name).read_text())


def test_the_server_takes_both(plan):
    topology.write_configs(plan)
    for name in ("backbone", *REGIONS):
        done = subprocess.run(
            [str(nats_server_binary()), "-t", "-c", str(topology.config_path(plan.root, name))],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "invalid use" not in said


def test_a_region_stores_durably_and_links_its_control_account_alone(plan):
    settings = written(plan, "eu-de")
    assert settings["jetstream"]["domain"] == "eu-de"
    assert settings["jetstream"]["sync_interval"] == "always"
    (remote,) = settings["leafnodes"]["remotes"]
    realm = plan.brokers.realm("eu-de")
    assert remote["account"] == realm.public(Account.CONTROL)
    assert remote["urls"] == [plan.backbone.url]
    assert remote["credentials"] == str(plan.root / "users" / "backbone" / "eu-de.creds")
    assert remote["tls"]["ca_file"] == str(plan.brokers.certificates("backbone").ca)
    assert settings["tls"]["ca_file"] == str(plan.brokers.certificates("eu-de").ca)
    assert settings["leafnodes"]["reconnect"] == "1s"
    assert settings["max_payload"] == 1 << 20


def test_a_server_believes_the_operator_of_its_broker_only(plan):
    for name in REGIONS:
        settings, realm = written(plan, name), plan.brokers.realm(name)
        assert settings["operator"] == realm.operator()
        accounts = {realm.public(one) for one in Account if one is not Account.BACKBONE}
        assert set(settings["resolver_preload"]) == accounts
        assert settings["system_account"] == realm.public(Account.SYSTEM)
    settings, realm = written(plan, "backbone"), plan.brokers.backbone
    assert settings["operator"] == realm.operator()
    assert set(settings["resolver_preload"]) == {
        realm.public(label) for label in (Account.SYSTEM, *REGIONS)
    }


def test_no_seed_is_in_a_configuration(plan):
    topology.write_configs(plan)
    seeds = [path.read_text().strip() for path in plan.root.rglob("*.seed")]
    assert seeds
    for name in ("backbone", *REGIONS):
        text = topology.config_path(plan.root, name).read_text()
        assert not [seed for seed in seeds if seed in text]
        assert not {"authorization", "accounts", "users"} & set(json.loads(text))


def test_the_backbone_keeps_nothing(plan):
    assert "jetstream" not in written(plan, "backbone")


def test_nothing_is_monitored_unless_asked_for(plan):
    assert "http" not in written(plan, "backbone")
    assert "http" not in written(plan, "eu-de")
    regions = tuple(replace(one, monitor_port=18222) for one in plan.regions)
    assert written(replace(plan, regions=regions), "eu-de")["http"] == "127.0.0.1:18222"


@pytest.mark.parametrize(
    "name", ["", "EU", "eu.de", "eu>", "*", "a" * 64, "ctl", "backbone", "eu\n", "eu/../x"]
)
def test_a_name_that_would_widen_a_subject_or_leave_the_directory_is_refused(tmp_path, name):
    with pytest.raises(DevError):
        region_name(name)
    with pytest.raises(DevError):
        topology.plan(tmp_path, [name])
    assert list(tmp_path.iterdir()) == []


def test_two_regions_of_one_name_are_refused(tmp_path):
    with pytest.raises(DevError):
        topology.plan(tmp_path, ["eu-de", "eu-de"])
    assert list(tmp_path.iterdir()) == []
