"""The text of the servers' configuration. That a server takes it is an integration test."""

import json
from dataclasses import replace
from pathlib import PurePath

import pytest
from kcm_broker import server_configuration as configuration
from kcm_schemas.codes import Code, KcmError

from tests.unit.broker_rig import account, user

TLS = configuration.Tls(
    PurePath("/etc/nats/server.pem"), PurePath("/etc/nats/server.key"), PurePath("/etc/nats/ca.pem")
)
LINK_TLS = configuration.Tls(
    PurePath("/etc/nats/link.pem"),
    PurePath("/etc/nats/link.key"),
    PurePath("/etc/nats/link-ca.pem"),
)
SYSTEM, REGION = account().public, account().public
TRUST = configuration.Trust(
    "operator.token.x", SYSTEM, {SYSTEM: "a.b.c", REGION: "d.e.f"}, PurePath("/var/lib/nats/jwt")
)
NODE = configuration.RegionNode(
    "eu",
    configuration.Listening("eu-1", "0.0.0.0", 4222),
    TLS,
    TRUST,
    configuration.Streams(PurePath("/var/lib/nats")),
    configuration.Link(
        ("tls://backbone-1:7422", "tls://backbone-2:7422"),
        REGION,
        PurePath("/etc/nats/link.creds"),
        LINK_TLS,
    ),
    configuration.Cluster(6222, ("tls://eu-2:6222",)),
)
BACKBONE = configuration.BackboneNode(
    configuration.Listening("backbone-1", "127.0.0.1", 4222), TLS, TRUST, "0.0.0.0", 7422,
    PurePath("/etc/nats/links-ca.pem"),
)  # fmt: skip


def test_a_regions_server_has_an_operator_streams_on_disk_and_one_link():
    found = json.loads(configuration.region_text(NODE))
    assert found["operator"] == "operator.token.x"
    assert found["system_account"] == SYSTEM
    assert found["resolver"] == {
        "type": "full",
        "dir": "/var/lib/nats/jwt",
        "allow_delete": False,
        "interval": "2s",
    }
    assert found["resolver_preload"] == {SYSTEM: "a.b.c", REGION: "d.e.f"}
    assert found["tls"] == {
        "cert_file": "/etc/nats/server.pem",
        "key_file": "/etc/nats/server.key",
        "ca_file": "/etc/nats/ca.pem",
        "min_version": "1.3",
        "handshake_first": True,
        "verify": False,
    }
    assert found["jetstream"]["sync_interval"] == "always"
    assert found["jetstream"]["domain"] == "eu"
    assert found["max_control_line"] == 65536
    (remote,) = found["leafnodes"]["remotes"]
    assert remote["account"] == REGION
    assert remote["credentials"] == "/etc/nats/link.creds"
    assert remote["tls"] == {
        "cert_file": "/etc/nats/link.pem",
        "key_file": "/etc/nats/link.key",
        "ca_file": "/etc/nats/link-ca.pem",
        "min_version": "1.3",
        "handshake_first": True,
    }
    assert found["cluster"]["tls"]["verify"] is True
    assert not {"authorization", "accounts", "users"} & set(found)


def test_the_backbone_has_no_streams_and_asks_leaf_nodes_for_certificates():
    found = json.loads(configuration.backbone_text(BACKBONE))
    assert "jetstream" not in found
    assert found["leafnodes"]["tls"]["verify"] is True
    assert found["leafnodes"]["tls"]["handshake_first"] is True
    assert found["leafnodes"]["no_advertise"] is True
    assert "cluster" not in found


def test_a_certificate_of_clients_is_asked_for_on_demand():
    node = replace(NODE, tls=replace(TLS, verify=True))
    assert json.loads(configuration.region_text(node))["tls"]["verify"] is True


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "a\x00b", "a\u2028b", "a\x7fb"])
def test_text_that_the_server_would_read_differently_is_refused(text):
    for node in (
        replace(NODE, tls=replace(TLS, key=PurePath(text))),
        replace(NODE, listening=replace(NODE.listening, host=text)),
        replace(NODE, link=replace(NODE.link, urls=(text,))),
        replace(NODE, link=replace(NODE.link, tls=replace(LINK_TLS, key=PurePath(text)))),
        replace(NODE, trust=replace(TRUST, operator_token=text)),
        replace(NODE, streams=configuration.Streams(PurePath(text))),
    ):
        with pytest.raises(KcmError) as caught:
            configuration.region_text(node)
        assert caught.value.code is Code.MALFORMED


def test_names_and_keys_are_checked():
    for node in (
        replace(NODE, region="ctl"),
        replace(NODE, region="EU"),
        replace(NODE, listening=replace(NODE.listening, name="eu 1")),
        replace(NODE, link=replace(NODE.link, account="CONTROL")),
        replace(NODE, trust=replace(TRUST, system_account=account().public)),
        replace(NODE, trust=replace(TRUST, preload=dict(TRUST.preload) | {user().public: "x"})),
    ):
        with pytest.raises(KcmError):
            configuration.region_text(node)
