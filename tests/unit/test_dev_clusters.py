"""A region on several brokers: their names, ports and routes, and that the real server takes it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from kcm_broker.roles import Account, Role
from kcm_devsystem import topology
from kcm_devsystem.brokers import RegionSpec
from kcm_devsystem.commands.shape_options import read_nodes
from kcm_devsystem.configs import address
from kcm_devsystem.errors import DevError
from kcm_devsystem.server_binary import nats_server_binary

REGIONS = ("eu-de", "us-east")


def written(root: Path, spec: RegionSpec) -> dict[str, Any]:
    """Return what a server's configuration says."""
    return json.loads(topology.config_path(root, spec.server_name).read_text())


def test_each_node_has_ports_of_its_own_and_a_route_to_each_other(tmp_path):
    plan = topology.plan(tmp_path, REGIONS, nodes={"eu-de": 3})
    servers = {spec.server_name: spec for spec in plan.servers}
    assert list(servers) == ["eu-de-1", "eu-de-2", "eu-de-3", "us-east"]
    assert len({spec.url for spec in servers.values()}) == 4
    assert len({spec.store_dir for spec in servers.values()}) == 4
    topology.write_configs(plan)
    for spec in plan.region("eu-de").nodes:
        settings = written(tmp_path, spec)["cluster"]
        others = {one.cluster.port for one in plan.region("eu-de").nodes if one is not spec}
        assert {int(route.rpartition(":")[2]) for route in settings["routes"]} == others
        assert "advertise" not in settings
        assert settings["tls"]["verify"] is True
        assert "authorization" not in settings
    assert "cluster" not in written(tmp_path, servers["us-east"])


def test_whoever_connects_knows_every_node(tmp_path):
    plan = topology.plan(tmp_path, REGIONS, nodes={"eu-de": 3})
    for region in REGIONS:
        at = address(plan, region, Role.CORE, Account.REGION, "core-1")
        assert list(at.urls) == [node.url for node in plan.region(region).nodes]


def test_links_take_their_detour_and_nobody_tells_a_shorter_way(tmp_path):
    asked = {}

    def detour(source, target, port):
        asked[source, target] = port
        return len(asked)  # no port of a plan

    plan = topology.plan(tmp_path, REGIONS, nodes={"eu-de": 3}, detour=detour)
    leaves = {source for source, target in asked if target == "backbone"}
    assert leaves == {spec.server_name for spec in plan.servers}
    assert len(asked) == len(leaves) + 6
    real = {plan.backbone.leaf_port, *(n.cluster.port for n in plan.region("eu-de").nodes)}
    assert set(asked.values()) == real
    topology.write_configs(plan)
    for spec in plan.servers:
        text = topology.config_path(tmp_path, spec.server_name).read_text()
        assert not any(re.search(rf":{port}\b", text) for port in real)
        assert spec.cluster is None or spec.cluster.advertise == "127.0.0.1:1"


def test_the_server_takes_a_node(tmp_path):
    plan = topology.plan(tmp_path, REGIONS, nodes={"eu-de": 3})
    topology.write_configs(plan)
    for spec in plan.servers:
        config = topology.config_path(tmp_path, spec.server_name)
        done = subprocess.run(
            [str(nats_server_binary()), "-t", "-c", str(config)],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("regions", "nodes"),
    [
        (("eu",), {"eu": 2}),
        (("eu",), {"eu": 6}),
        (("eu",), {"eu": 0}),
        (("eu",), {"mars": 3}),
        (("eu", "eu-1"), {"eu": 3}),
    ],
)
def test_what_cannot_be_a_cluster_is_refused(tmp_path, regions, nodes):
    with pytest.raises(DevError):
        topology.plan(tmp_path, regions, nodes=nodes)
    assert list(tmp_path.iterdir()) == []


def test_the_command_takes_a_region_and_a_number():
    assert read_nodes(("eu-de=3", "us-east=5")) == {"eu-de": 3, "us-east": 5}
    for wrong in ("eu-de", "eu-de=", "eu-de=x", "eu-de=-3", "eu-de=3.5", "eu-de=²"):
        with pytest.raises(click.UsageError):
            read_nodes((wrong,))
