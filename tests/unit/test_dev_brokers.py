"""The text of the brokers' configurations, and that the real server takes it."""

import json
import subprocess
from pathlib import Path

import pytest
from kcm_devsystem.brokers import (
    Account,
    BackboneSpec,
    LeafLogin,
    Login,
    Permissions,
    RegionSpec,
    Role,
    Rule,
    login_name,
    render_backbone,
    render_region,
)
from kcm_devsystem.errors import DevError
from kcm_devsystem.server_binary import nats_server_binary

LEAVES = (LeafLogin("eu-de", "secret-eu"), LeafLogin("us-east", "secret-us"))


def backbone(leaves: tuple[LeafLogin, ...] = LEAVES, **changes) -> BackboneSpec:
    return BackboneSpec("127.0.0.1", 14222, 17422, leaves, **changes)


def region(store_dir: Path = Path("/data"), name: str = "eu-de", **changes) -> RegionSpec:
    users = (
        Login(Role.CORE, Account.REGION, "secret-core"),
        Login(Role.CORE, Account.CONTROL, "secret-core-control"),
        Login(
            Role.APP,
            Account.REGION,
            "secret-app",
            Permissions(
                publish=Rule(allow=("kcm.v1.eu-de.gateway.>",)),
                subscribe=Rule(deny=("kcm.v1.eu-de.core.>",)),
                responses=1,
            ),
        ),
    )
    leaf = LeafLogin(name, "p@ss/word")
    return RegionSpec(name, "127.0.0.1", 14223, store_dir, backbone().url, leaf, users, **changes)


def test_the_server_takes_both(tmp_path):
    texts = {
        "backbone": render_backbone(backbone(ports_dir=tmp_path, monitor_port=18222)),
        "region": render_region(region(tmp_path / "store", ports_dir=tmp_path)),
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}.conf"
        path.write_text(text)
        done = subprocess.run(
            [str(nats_server_binary()), "-t", "-c", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "invalid use" not in said


def test_a_region_stores_durably_and_links_its_control_account_alone():
    settings = json.loads(render_region(region()))
    assert settings["jetstream"]["domain"] == "eu-de"
    assert settings["jetstream"]["sync_interval"] == "always"
    assert settings["accounts"]["REGION"]["jetstream"] == "enabled"
    assert "jetstream" not in settings["accounts"]["CONTROL"]
    (remote,) = settings["leafnodes"]["remotes"]
    assert remote["account"] == "CONTROL"
    assert remote["url"] == "nats-leaf://eu-de:p%40ss%2Fword@127.0.0.1:17422"
    assert settings["leafnodes"]["reconnect"] == "1s"
    assert settings["max_payload"] == 1 << 20


def test_permissions_are_written_as_given_and_none_means_the_whole_account():
    users = {
        u["user"]: u for u in json.loads(render_region(region()))["accounts"]["REGION"]["users"]
    }
    assert "permissions" not in users["core"]
    assert users["app"]["permissions"] == {
        "publish": {"allow": ["kcm.v1.eu-de.gateway.>"]},
        "subscribe": {"deny": ["kcm.v1.eu-de.core.>"]},
        "allow_responses": {"max": 1, "expires": "1m"},
    }


def test_the_backbone_keeps_nothing_and_shares_only_what_bears_a_regions_name():
    settings = json.loads(render_backbone(backbone()))
    assert "jetstream" not in settings
    assert set(settings["accounts"]) == {"eu-de", "us-east"}
    account = settings["accounts"]["eu-de"]
    assert account["exports"] == [
        {"stream": "kcm.v1.ctl.hold.eu-de.>"},
        {"stream": "kcm.v1.ctl.receipt.eu-de.>"},
        {"stream": "kcm.v1.ctl.probe.eu-de.>"},
        {"service": "kcm.v1.ctl.pull.eu-de.us-east", "accounts": ["us-east"]},
    ]
    assert account["imports"] == [
        {"stream": {"account": "us-east", "subject": "kcm.v1.ctl.hold.us-east.>"}},
        {"stream": {"account": "us-east", "subject": "kcm.v1.ctl.receipt.us-east.>"}},
        {"stream": {"account": "us-east", "subject": "kcm.v1.ctl.probe.us-east.>"}},
        {"service": {"account": "us-east", "subject": "kcm.v1.ctl.pull.us-east.eu-de"}},
    ]
    assert [user["allowed_connection_types"] for user in account["users"]] == [["LEAFNODE"]]


def test_nothing_is_monitored_unless_asked_for():
    assert "http" not in json.loads(render_backbone(backbone()))
    assert "http" not in json.loads(render_region(region()))
    assert json.loads(render_region(region(monitor_port=18222)))["http"] == "127.0.0.1:18222"


@pytest.mark.parametrize(
    "name", ["", "EU", "eu.de", "eu>", "*", "a" * 64, "ctl", "backbone", "eu\n", "eu/../x"]
)
def test_a_name_that_would_widen_a_subject_or_leave_the_directory_is_refused(name):
    with pytest.raises(DevError):
        render_region(region(name=name))
    with pytest.raises(DevError):
        render_backbone(backbone((LeafLogin(name, "x"),)))


def test_two_regions_of_one_name_are_refused():
    with pytest.raises(DevError):
        render_backbone(backbone((LEAVES[0], LEAVES[0])))


@pytest.mark.parametrize("password", ['a"b', "a\\b", "a\nb", "a\x00b", "a\u2028b"])
def test_a_value_that_json_and_the_server_read_differently_is_refused(password):
    with pytest.raises(DevError) as caught:
        render_backbone(backbone((LeafLogin("eu-de", password),)))
    assert password not in str(caught.value)


def test_users_are_found_by_role_and_account():
    spec = region()
    assert spec.login(Role.CORE, Account.CONTROL).password == "secret-core-control"
    assert login_name(Role.CORE, Account.REGION) == "core"
    assert login_name(Role.GATEWAY, Account.CONTROL) == "gateway-control"
    with pytest.raises(DevError):
        spec.login(Role.APP, Account.CONTROL)


def test_no_password_shows_in_a_specification():
    assert "secret" not in repr(backbone())
    assert "secret" not in repr(region())
    assert "secret" not in region().url + backbone().url
