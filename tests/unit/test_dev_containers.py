"""Each container gets what it needs and nothing else, and what it gets works."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from kcm import ClientContext
from kcm_auditor.config import AuditorConfig
from kcm_broker import signers
from kcm_deployment.errors import DeploymentError
from kcm_devsystem import containers, setup
from kcm_devsystem.containers import INSTANCES, REGIONS, member, write_compose
from kcm_devsystem.errors import DevError
from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.config import load
from kcm_runtime.files import private_files
from kcm_runtime.files.private_files import copy_private
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.instance import load_instance
from kcm_runtime.nats import credentials
from kcm_runtime.nats.login import Login
from kcm_schemas.roster import Role
from kcm_trust.verify import verify_roster

NOW = 1_700_000_000_000
ALL = {"config.toml", "roster", "identity", "region-bus", "ca.pem"}
SERVER = {"nats.conf", "server.pem", "server.key", "ca.pem"}
ACCOUNTS = {
    "core": ("region", "control", "vault"),
    "gateway": ("region", "control"),
    "auditor": ("region",),
}
FILES = {
    "core": ALL | {"control-bus", "vault-bus", "seal-key"},
    "gateway": ALL | {"control-bus"},
    "auditor": ALL,
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What setup sees, once it is done."""
    root = tmp_path_factory.mktemp("system")
    write_compose(root, NOW)
    return root


def role_of(name: str) -> str:
    return name.rpartition("-")[0]


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path from there."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_each_container_has_exactly_its_own_files(system):
    for region in REGIONS:
        for name in INSTANCES:
            assert set(tree(system / region / name)) == FILES[role_of(name)], name
        buses = {"region-bus", "vault-bus"}
        assert set(tree(system / region / "provision")) == {"config.toml", "ca.pem"} | buses
        link = {"link.creds", "link.pem", "link.key", "link-ca.pem"}
        assert set(tree(system / region / "broker")) == SERVER | link
        assert {p.name for p in (system / region).iterdir()} == {*INSTANCES, "provision", "broker"}
    assert set(tree(system / "backbone")) == SERVER | {"links-ca.pem"}
    of_regions = {
        f"{region}/{file}" for region in REGIONS for file in ("ca.pem", "operator.creds", "signers")
    }
    files = {"context.toml", "roster", "operator.key", "app.key"} | of_regions
    assert set(tree(system / "operator")) == files
    signers = {f"{region}/signers" for region in REGIONS}
    assert set(tree(system / "authority" / "approver")) == files - signers
    assert {p.name for p in system.iterdir()} == {"authority", "operator", "backbone", *REGIONS}


KINDS = ("keys", "secrets", "realms", "users", "certificates")
"""The directories of the originals."""


def secrets_of(authority: Path) -> dict[str, bytes]:
    """Every secret of the originals as its file has it, without those that are only copies."""
    found: dict[str, bytes] = {}
    for kind in KINDS:
        for name, data in tree(authority / kind).items():
            path = authority / kind / name
            match path.suffix:
                case ".creds":
                    found[f"{kind}/{name}"] = credentials.read(path).key.seed().encode()
                case ".pem" | ".jwt":
                    pass  # public
                case _ if path.name == "signers":
                    pass  # seeds of the realm, which are looked for
                case _:
                    found[f"{kind}/{name}"] = data.strip() if path.suffix else data
    return found


def test_every_secret_is_where_it_is_needed_and_nowhere_else(system):
    """By their bytes, whatever the files are called: the operator root is in no bundle."""
    kept = secrets_of(system / "authority")
    assert len(set(kept.values())) == len(kept)
    originals = tuple(f"authority/{kind}/" for kind in KINDS)
    bundles = {n: d for n, d in tree(system).items() if not n.startswith(originals)}
    found = {
        name: {place.rpartition("/")[0] for place, data in bundles.items() if secret in data}
        for name, secret in kept.items()
    }
    expected = {
        "keys/operator": {"operator"},
        "keys/approver": {"authority/approver"},
        "keys/app": {"operator", "authority/approver"},
        "certificates/backbone/backbone.key": {"backbone"},
    }
    for region in REGIONS:
        broker, provision = f"{region}/broker", f"{region}/provision"
        operators = {"operator": f"operator/{region}", "approver": f"authority/approver/{region}"}
        for name in INSTANCES:
            own, role = member(region, name).name, role_of(name)
            expected[f"keys/{own}"] = {f"{region}/{name}"}
            for account in ACCOUNTS[role]:
                expected[f"users/{region}/{role}-{own}-{account}.creds"] = {f"{region}/{name}"}
        for name, place in operators.items():
            expected[f"users/{region}/operator-{name}-region.creds"] = {place}
        for account in ("region", "vault"):
            expected[f"users/{region}/provisioner-setup-{account}.creds"] = {provision}
        for role in ("application", "plain"):
            expected[f"realms/{region}/accounts/region/{role}.seed"] = {f"operator/{region}"}
        expected |= {
            f"secrets/{region}/seal-key": {f"{region}/core-1", f"{region}/core-2"},
            f"users/backbone/{region}.creds": {broker},
            f"certificates/{region}/{region}.key": {broker},
            f"certificates/links/{region}.key": {broker},
        }
    assert {name: places for name, places in found.items() if places} == expected
    nowhere = {name for name, places in found.items() if not places}
    for broker in ("backbone", *REGIONS):
        realm = f"realms/{broker}"
        assert {f"{realm}/operator.seed", f"{realm}/signer.seed"} <= nowhere
        assert f"{realm}/accounts/system/account.seed" in nowhere
        assert f"certificates/{broker}/ca.key" in nowhere
    assert "keys/root" in nowhere
    rest = {name for name in nowhere if not name.startswith(("realms/", "keys/root"))}
    assert rest == {f"certificates/{name}/ca.key" for name in ("backbone", "links", *REGIONS)} | {
        f"users/{region}/pusher-setup-system.creds" for region in REGIONS
    }


def test_an_operator_gets_the_keys_that_sign_applications_and_no_others(system):
    for region in REGIONS:
        mine = signers.read(system / "operator" / region / "signers")
        realm = system / "authority" / "realms" / region / "accounts" / "region"
        for role in signers.SIGNED:
            assert mine.keys[role].seed() == (realm / f"{role}.seed").read_text().strip()
        assert len(mine.keys) == len(signers.SIGNED)


def test_nobody_else_can_read_any_of_it(system):
    for path in system.rglob("*"):
        # The tokens and certificates of the authority are signed, and public.
        if path.suffix not in {".pem", ".jwt"} or "authority" not in path.parts:
            assert path.stat().st_mode & 0o077 == 0, path


def mapped(system: Path, region: str, name: str, tmp_path: Path) -> Path:
    """An instance's configuration, with the container's paths led to where its files lie."""
    places = {
        containers.CONFIG_DIR: system / region / name,
        containers.KEY_STORE: tmp_path / "keys",
        containers.STATE_DIR: tmp_path / "state",
        containers.READY_FILE: tmp_path / "ready",
    }
    (tmp_path / "keys").mkdir()
    text = (system / region / name / "config.toml").read_text()
    for inside, outside in places.items():
        # Up to the end of a name: /var/lib/kcm is not the beginning of /var/lib/kcm-keys.
        for end in ('"', "/"):
            text = text.replace(f'"{inside}{end}', f'"{outside}{end}')
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", ["core-2", "gateway-1"])
def test_the_service_takes_its_configuration(system, region, name, tmp_path):
    config = mapped(system, region, name, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", f"kcm_{role_of(name)}", "--config", str(config), "--check"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("region", REGIONS)
def test_the_auditor_takes_its_configuration(system, region, tmp_path):
    config = load(AuditorConfig, str(mapped(system, region, "auditor-1", tmp_path)))
    assert load_instance(config, Role.AUDITOR, SystemKeyRandomness()).name == f"auditor-{region}-1"
    assert config.auditor.journal == tmp_path / "state" / "journal"
    # No network joins it to another region's broker.
    assert [bus.region for bus in config.regions if bus.region != region] == []


def test_no_path_of_a_configuration_leads_out_of_the_container(system):
    """Everything that is named is mounted, or made by the instance itself."""

    def paths(value: object) -> list[str]:
        match value:
            case dict():
                return [path for one in value.values() for path in paths(one)]
            case list():
                return [path for one in value for path in paths(one)]
            case str() if value.startswith("/"):
                return [value]
            case _:
                return []

    for region in REGIONS:
        for name in INSTANCES:
            directory = system / region / name
            own = {str(containers.CONFIG_DIR / file.name) for file in directory.iterdir()}
            made = {"/var/lib/kcm/state", "/var/lib/kcm-keys", "/var/lib/kcm/journal"}
            given = {str(containers.READY_FILE), str(containers.HSM_MODULE)}
            content = tomllib.loads((directory / "config.toml").read_text())
            assert set(paths(content)) <= own | made | given, name


def test_the_operator_can_work_with_what_the_command_line_mounts(system):
    context = ClientContext.load(system / "operator" / "context.toml")
    verifier = context.verifier()
    assert context.identity().public == verifier.roster.operators[0].public_key
    assert set(context.regions) == set(REGIONS)
    for region in REGIONS:
        at = context.operator_address(region)
        assert at.url == f"tls://nats-{region}:4222"
        assert at.ca is not None
        assert at.ca.is_file()
        Login(at).check()
        assert at.inbox == "_INBOX.operator"
        path = context.signers_path(region)
        assert path is not None
        assert signers.read(path)


def test_done_again_it_changes_nothing(tmp_path):
    first = write_compose(tmp_path, NOW)
    before = tree(tmp_path)
    assert write_compose(tmp_path, NOW + 1_000) == first
    assert tree(tmp_path) == before


KEPT = ("-key", "-bus", "identity", ".seed", ".creds", "signers", ".pem", ".key")


def test_a_new_region_raises_the_roster_and_keeps_every_key(tmp_path):
    public = write_compose(tmp_path, NOW, ["eu-de"])
    before = tree(tmp_path)
    assert write_compose(tmp_path, NOW + 1_000) == public
    after = tree(tmp_path)
    rosters = {data for name, data in after.items() if name.endswith("roster")}
    assert len(rosters) == 1
    assert verify_roster(rosters.pop(), public, 1).version == 2
    for name, data in before.items():
        if name.endswith(KEPT) or name.startswith("authority/keys"):
            assert after[name] == data, name


def test_without_its_authority_a_system_is_left_as_it_is(tmp_path):
    """A new operator root would lock out every instance, and all that they keep, for ever."""
    write_compose(tmp_path, NOW)
    (tmp_path / "authority" / "keys" / "root").unlink()
    before = tree(tmp_path)
    with pytest.raises(DeploymentError, match="authority is missing"):
        write_compose(tmp_path, NOW)
    assert tree(tmp_path) == before
    assert setup.main(["init", "--dir", str(tmp_path)]) == setup.EXIT_FAULT


def test_two_setups_at_once_are_refused(tmp_path):
    from kcm_devsystem import state

    with (
        state.exclusive(tmp_path / "authority"),
        pytest.raises(DevError, match="another command changes"),
    ):
        write_compose(tmp_path, NOW)


def test_a_copy_is_private_whole_and_replaces_what_was_there(tmp_path):
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(b"x" * 300_000)
    source.chmod(0o644)
    copy_private(source, target)
    source.write_bytes(b"shorter")
    copy_private(source, target)
    assert target.read_bytes() == b"shorter"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_copy_follows_no_link_that_lies_in_wait(tmp_path):
    source, target, victim = tmp_path / "source", tmp_path / "target", tmp_path / "victim"
    source.write_bytes(b"secret")
    victim.write_bytes(b"untouched")
    target.symlink_to(victim)
    copy_private(source, target)
    assert victim.read_bytes() == b"untouched"
    assert not target.is_symlink()


def test_what_is_too_large_is_not_copied(tmp_path):
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(private_files.COPY_BYTES_MAX + 1)
    with pytest.raises(SecretFileError, match="too large"):
        copy_private(source, tmp_path / "to" / "target")
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ['region = "eu-de"', "not toml", 'region = "EU"\nreplicas = 9', None],
    ids=["no bus", "not TOML", "bad values", "no file"],
)
def test_provisioning_refuses_a_configuration_that_cannot_be_used(tmp_path, text, capsys):
    path = tmp_path / "config.toml"
    if text is not None:
        path.write_text(text)
    assert setup.main(["provision", "--config", str(path)]) == setup.EXIT_CONFIG
    assert str(path) in capsys.readouterr().err
