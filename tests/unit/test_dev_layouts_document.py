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
from kcm_devsystem.identities import Trust
from kcm_killswitch.model.timing import Timing
from kcm_schemas.roster import Role
from kcm_trust.verify import verify_roster

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_ceremony_makes_what_its_table_names(tmp_path, monkeypatch, capsys):
    (script,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "deployment.md", "exec"), {})
    public = bytes.fromhex(capsys.readouterr().out.split()[-1])
    trust = Trust(tmp_path / "trust")
    roster = verify_roster(trust.roster.read_bytes(), public, 0)
    assert {region.region for region in roster.regions} == {"eu-de", "us-east"}
    for instance in roster.instances:
        assert trust.key(instance.instance).stat().st_size == 32
    assert sum(instance.role is Role.CORE for instance in roster.instances) == 4
    for path in re.findall(r"trust/(secrets/\S+/seal-key)", TEXT):
        assert (trust.root / path).is_file(), path


def test_the_configurations_are_taken():
    provision, core, unsealer, timing, user, log = (tomllib.loads(text) for text in blocks("toml"))
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


def test_the_core_finds_each_credential_that_its_unit_gives_it():
    core = tomllib.loads(blocks("toml")[1])
    unit = (ROOT / "deploy" / "systemd" / "kcm-core@.service").read_text()
    given = set(re.findall(r"^LoadCredentialEncrypted=([\w-]+):", unit, flags=re.MULTILINE))
    directory = f"/run/credentials/kcm-core@{core['instance']}.service"
    text = "\n".join(block for block in blocks("toml") if "[unsealer_environment]" not in block)
    named = set(re.findall(rf'"{directory}/([\w-]+)"', text))
    assert named == given
    sealed = dict(re.findall(r"^seal (\S+) +\S+ +(\S+)$", TEXT, flags=re.MULTILINE))
    for name, source in re.findall(r"^LoadCredentialEncrypted=([\w-]+):(\S+)$", unit, re.MULTILINE):
        file = sealed[name].strip('"').replace("$i", "%i")
        assert source == f"/etc/kcm/core/{file}.cred"
    assert core["state_dir"] == unit_path(unit, "StateDirectory", "/var/lib", core)
    assert core["ready_file"] == unit_path(unit, "RuntimeDirectory", "/run", core) + "/ready"
    assert f"ReadWritePaths=-{core['key_store']}\n" in unit


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
