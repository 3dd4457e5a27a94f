"""The section of the account with the wrapped keys is required, and its secret is the Core's."""

from pathlib import Path

import pytest
from kcm.ops.provision import ProvisionConfig
from kcm_broker.server_subjects import IN_REGION, IN_VAULT
from kcm_core.config import CoreConfig
from kcm_runtime.config import ConfigError, load
from kcm_runtime.nats.provision import CORE_STREAMS, VAULT_STREAMS

BUS = """
[{name}_bus]
url = "tls://127.0.0.1:4222"
credentials = "/run/{name}-bus"
"""
CORE = """
instance = "core-eu-1"
region = "eu"
root_public = "{root}"
roster = "r"
identity = "i"
state_dir = "s"
key_store = "k"
[secrets]
seal_key = "x"
""".format(root="0" * 64)


def written(tmp_path, text, *buses):
    path = tmp_path / "config.toml"
    path.write_text(text + "".join(BUS.format(name=name) for name in buses))
    return str(path)


@pytest.mark.parametrize(
    ("model", "text", "buses"),
    [
        (CoreConfig, CORE, ("region", "control")),
        (ProvisionConfig, 'region = "eu"\n', ("region",)),
    ],
)
def test_a_configuration_without_it_is_refused_with_its_name(tmp_path, model, text, buses):
    with pytest.raises(ConfigError, match=r"config\.toml: vault_bus: is missing"):
        load(model, written(tmp_path, text, *buses))
    assert load(model, written(tmp_path, text, *buses, "vault")).vault_bus.credentials == Path(
        "/run/vault-bus"
    )


def test_its_login_is_one_of_the_cores_own_files(tmp_path):
    config = load(CoreConfig, written(tmp_path, CORE, "region", "control", "vault"))
    own = {Path(f"/run/{name}-bus") for name in ("region", "control", "vault")}
    assert own <= set(config.own_paths)


def test_each_account_has_the_streams_that_its_rights_name():
    assert set(CORE_STREAMS) == set(IN_REGION)
    assert set(VAULT_STREAMS) == set(IN_VAULT)
