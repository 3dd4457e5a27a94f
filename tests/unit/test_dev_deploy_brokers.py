"""The servers of a deployment: the server accepts what ``kcm init`` writes for each of them."""

import json
import subprocess

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from kcm_broker.accounts import peering_of
from kcm_deployment.bundles import write_bundles
from kcm_deployment.deployment import Deployment, RegionPlan, Server
from kcm_deployment.layouts import SYSTEMD
from kcm_deployment.members import Member, Person
from kcm_devsystem.server_binary import nats_server_binary
from kcm_runtime.nats.nkeys import KeyKind, SigningKey
from kcm_schemas.roster import OperatorRole, Role

REGIONS = ("eu", "us")
SERVERS = {"eu": 3, "us": 1, "backbone": 3}


def servers(name):
    return tuple(Server(f"{name}-{n}", f"{name}-{n}.example") for n in range(1, SERVERS[name] + 1))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    directory = tmp_path_factory.mktemp("deployment")
    regions = tuple(
        RegionPlan(name, servers(name), (Member(Role.CORE, name, 1),)) for name in REGIONS
    )
    people = (Person("alice", (OperatorRole.ADMIN,)),)
    write_bundles(directory, Deployment("acme", regions, servers("backbone"), people), SYSTEMD, 1)
    return directory


@pytest.mark.parametrize(
    "server", [f"{name}/{name}-{n}" for name, count in SERVERS.items() for n in (1, count)]
)
def test_the_server_takes_its_configuration(bundles, tmp_path, server):
    bundle = bundles / server
    text = (bundle / "nats.conf").read_text()
    for inside, outside in (("/etc/nats", bundle), ("/var/lib/nats", tmp_path)):
        assert inside in text
        text = text.replace(inside, str(outside))
    path = tmp_path / "nats.conf"
    path.write_text(text)
    done = subprocess.run(
        [str(nats_server_binary()), "-t", "-c", str(path)],
        env={},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_of_a_cluster_has_a_route_to_each_other_one(bundles):
    settings = json.loads((bundles / "eu/eu-2/nats.conf").read_text())
    assert settings["cluster"]["routes"] == [f"tls://eu-{n}.example:6222" for n in (1, 3)]
    assert settings["cluster"]["tls"]["verify"] is True
    assert "cluster" not in json.loads((bundles / "us/us-1/nats.conf").read_text())


def test_the_servers_of_a_cluster_and_the_leaf_nodes_reach_each_other(bundles):
    """Only the backbone's port for clients, which no client may use, is on the loopback."""
    for path in bundles.glob("*/*/nats.conf"):
        settings = json.loads(path.read_text())
        assert settings.get("cluster", {"host": "0.0.0.0"})["host"] == "0.0.0.0"
        assert settings["leafnodes"].get("host", "0.0.0.0") == "0.0.0.0"
        inside = path.parent.parent.name == "backbone"
        assert settings["host"] == ("127.0.0.1" if inside else "0.0.0.0")


def test_a_region_enters_the_backbone_as_a_leaf_and_not_as_a_server(bundles):
    """Its certificate is of another authority than those that the backbone's routes trust."""
    routes = x509.load_pem_x509_certificate((bundles / "backbone/backbone-1/ca.pem").read_bytes())
    links = (bundles / "backbone/backbone-1/links-ca.pem").read_bytes()
    made = x509.load_pem_x509_certificate((bundles / "eu/eu-1/link.pem").read_bytes())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(links))
    with pytest.raises((ValueError, InvalidSignature)):
        made.verify_directly_issued_by(routes)
    settings = json.loads((bundles / "backbone/backbone-1/nats.conf").read_text())
    assert settings["cluster"]["tls"]["ca_file"] == "/etc/nats/ca.pem"
    assert settings["leafnodes"]["tls"]["ca_file"] == "/etc/nats/links-ca.pem"


def test_no_server_has_a_user_or_a_password(bundles):
    for path in bundles.glob("*/*/nats.conf"):
        text = path.read_text()
        assert "password" not in text
        assert '"users"' not in text
        assert json.loads(text)["tls"]["handshake_first"] is True


def test_a_region_pulls_from_each_other_one_in_its_own_name():
    keys = {region: SigningKey.generate(KeyKind.ACCOUNT).public for region in REGIONS}
    peering = peering_of("eu", keys)
    services = [one["subject"] for one in peering.exports if one["type"] == "service"]
    assert services == ["kcm.v1.ctl.pull.eu.us"]
