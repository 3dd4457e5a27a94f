"""What docs/deployment.md tells people to copy works."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from kcm.ops.provision import ProvisionConfig
from kcm_core.config import CoreConfig
from kcm_deployment.bundles import write_bundles
from kcm_deployment.deployment import Deployment, RegionPlan, Server
from kcm_deployment.layouts import SYSTEMD
from kcm_deployment.members import Member, Person
from kcm_deployment.plan_file import EXAMPLE, PlanFile
from kcm_killswitch.model.timing import Timing
from kcm_schemas.roster import OperatorRole, Role

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_configurations_are_taken():
    plan, provision, core, unsealer, timing, user, log = map(tomllib.loads, blocks("toml"))
    example = tomllib.loads(EXAMPLE)
    example["regions"]["eu-de"] |= plan["regions"]["eu-de"]
    assert PlanFile.model_validate(example).regions["eu-de"].embedded[0].count == 2
    assert ProvisionConfig.model_validate(provision).replicas == 3
    core["root_public"] = "0" * 64
    config = CoreConfig.model_validate(core)
    assert not config.development
    environment = CoreConfig.model_validate(core | unsealer).unsealer_environment
    assert {"KCM_L1_MODULES", "KCM_L1_ENDPOINTS", "HTTPS_PROXY"} <= set(environment)
    socket = CoreConfig.model_validate(core | user).unsealer
    assert socket is not None
    unit = (ROOT / "deploy" / "systemd" / "kcm-unsealer@.socket").read_text()
    where = str(socket.socket).replace(core["instance"], "%i")
    assert f"ListenSequentialPacket={where}\n" in unit
    assert f"SocketUser={socket.user}\n" in unit
    assert CoreConfig.model_validate(core | log).log.format == "json"
    assert CoreConfig.model_validate(core | timing).timing == Timing()
    assert set(timing["timing"]) == {field.name for field in fields(Timing)} - UNSAID


UNSAID = {"probe_jitter", "clock_error"}
"""Durations that nobody has a reason to change."""


@pytest.mark.parametrize("role", ["core", "gateway", "auditor"])
def test_a_unit_gives_an_instance_each_credential_of_its_bundle(bundles, role):
    name = f"{role}-eu-1"
    bundle = bundles / "eu" / name
    unit = (ROOT / "deploy" / "systemd" / f"kcm-{role}@.service").read_text()
    given = dict(re.findall(r"^LoadCredentialEncrypted=([\w-]+):(\S+)$", unit, re.MULTILINE))
    secrets = {path.name for path in bundle.iterdir()} - {"config.toml", "roster", "ca.pem"}
    assert set(given) == secrets
    for secret, source in given.items():
        assert source == f"/etc/kcm/{role}/%i.{secret}.cred"
    text = (bundle / "config.toml").read_text()
    directory = f"/run/credentials/kcm-{role}@{name}.service"
    assert set(re.findall(rf'"{directory}/([\w-]+)"', text)) == secrets
    config = tomllib.loads(text)
    base = "" if role != "auditor" else "/state"
    assert config["state_dir"] == unit_path(unit, "StateDirectory", "/var/lib", config) + base
    assert config["ready_file"] == unit_path(unit, "RuntimeDirectory", "/run", config) + "/ready"
    if role == "core":
        assert f"ReadWritePaths=-{config['key_store']}\n" in unit


def test_the_document_seals_what_a_core_needs_and_shows_its_configuration(bundles):
    bundle = bundles / "eu" / "core-eu-1"
    (names,) = re.findall(r"^for name in ([\w -]+); do$", TEXT, flags=re.MULTILINE)
    assert set(names.split()) == {p.name for p in bundle.iterdir()} - {
        "config.toml", "roster", "ca.pem",
    }  # fmt: skip
    made = tomllib.loads((bundle / "config.toml").read_text())
    shown = tomllib.loads(blocks("toml")[2])
    assert shape(shown) == shape(made)
    made = tomllib.loads((bundles / "eu" / "provision" / "config.toml").read_text())
    assert shape(tomllib.loads(blocks("toml")[1])) == shape(made)


def shape(config):
    """The keys of a configuration; the document's region has three servers."""
    return {
        key: shape(value) if isinstance(value, dict) else type(value)
        for key, value in config.items()
        if key != "also"
    }


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("deployment")
    members = tuple(Member(role, "eu", 1) for role in Role)
    region = RegionPlan("eu", (Server("eu-1", "n.example"),), members)
    people = (Person("alice", (OperatorRole.ADMIN,)),)
    plan = Deployment("acme", (region,), (Server("backbone-1", "b.example"),), people)
    write_bundles(directory, plan, SYSTEMD, 1)
    return directory


def unit_path(unit: str, setting: str, base: str, config: dict[str, Any]) -> str:
    (value,) = re.findall(rf"^{setting}=(\S+)$", unit, flags=re.MULTILINE)
    return f"{base}/{value.replace('%i', config['instance'])}"


@pytest.mark.parametrize("word", ["run --rm -T", "exec", "exec -T", "logs --follow", "stop"])
def test_every_service_that_a_command_names_is_there(word):
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    names = re.findall(rf"docker compose {word} ([a-z][\w-]*)", TEXT)
    assert names
    assert set(names) <= set(services)


def test_every_file_and_heading_that_is_linked_is_there():
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", TEXT):
        file, _, heading = target.partition("#")
        text = (ROOT / "docs" / file).read_text() if file else TEXT
        titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        slugs |= set(re.findall(r'<a id="([^"]+)"></a>', text))
        assert not heading or heading in slugs, target
