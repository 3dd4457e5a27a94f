"""``kcm init``: a plan becomes the files of every machine, and a repetition keeps every key."""

import json
import os
import shutil
from pathlib import Path

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_broker.certificates import Authority
from kcm_deployment.bundles import AUTHORITY
from kcm_deployment.plan_file import EXAMPLE
from kcm_deployment.trust_files import Trust, known_roster
from kcm_runtime.clock import SystemClock
from kcm_runtime.files.identity_file import load_identity
from kcm_schemas.codec import encode
from kcm_schemas.roster import Retirement
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT

PLAN = """
version = 1
system = "acme"
operators = [
    {name = "alice", roles = ["admin", "security"]},
    {name = "bob", roles = ["security"]},
]
[backbone]
servers = ["b.example"]
[regions.eu]
servers = ["n1.example", "n2.example", "n3.example"]
cores = 2
[regions.us]
servers = ["10.0.0.1"]
cores = 1
"""


class Desk:
    def __init__(self, directory, capsys):
        self.directory = directory
        self._capsys = capsys
        self.plan = directory / "plan.toml"
        self.plan.write_text(PLAN)
        self.made = directory / "deployment"

    def init(self, *more, expect=Exit.OK):
        self._capsys.readouterr()
        code = run(["init", str(self.plan), "--dir", str(self.made), "-o", "json", *more])
        said = self._capsys.readouterr()
        assert code == expect, said.err
        return json.loads(said.out) if code == Exit.OK else json.loads(said.err.splitlines()[-1])

    def refused(self, text, *words, code=Exit.USAGE):
        self.plan.write_text(text)
        before = tree(self.made)
        error = self.init(expect=code)
        assert tree(self.made) == before
        for word in words:
            assert word in error["detail"] + error["hint"], error
        return error

    @property
    def authority(self):
        return self.made / AUTHORITY


@pytest.fixture
def desk(tmp_path, capsys):
    return Desk(tmp_path, capsys)


def tree(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_the_example_is_a_plan(desk, capsys):
    assert run(["init", "--example"]) == Exit.OK
    assert capsys.readouterr().out == EXAMPLE
    desk.plan.write_text(EXAMPLE)
    made = desk.init()
    assert {one["bundle"] for one in made["bundles"]} >= {"eu-de/core-eu-de-1", "operators/alice"}
    for one in made["bundles"]:
        assert (desk.made / one["bundle"]).is_dir()


def test_a_repetition_changes_nothing(desk):
    first = desk.init()
    assert {one["change"] for one in first["bundles"]} == {"made"}
    assert first["next"] == []
    before = tree(desk.made)
    again = desk.init()
    assert {one["change"] for one in again["bundles"]} == {"same"}
    assert again["next"] == []
    assert (again["root_public"], again["roster"]) == (first["root_public"], 1)
    assert tree(desk.made) == before


def test_every_file_is_for_its_owner_alone(desk):
    os.umask(0o022)
    desk.init()
    public = {"roster", "ca.pem", "token.jwt", "operator.jwt"}
    for path in desk.made.rglob("*"):
        inside = path.is_relative_to(desk.authority)
        if not (inside and (path.name in public or path.suffix == ".pem")):
            assert path.stat().st_mode & 0o077 == 0, path


def test_each_secret_is_in_the_authority_and_with_its_owner(desk):
    desk.init()
    held = {
        name: data.strip()
        for name, data in tree(desk.authority).items()
        if name.startswith(("keys/", "secrets/", "realms/")) and not name.endswith(".jwt")
    }
    outside = {n: d for n, d in tree(desk.made).items() if not n.startswith(AUTHORITY)}
    places = {
        name: {where.rpartition("/")[0] for where, data in outside.items() if secret in data}
        for name, secret in held.items()
    }
    assert len(held) > 60
    for name, found in places.items():
        kind, _, rest = name.partition("/")
        if kind == "secrets":
            region = rest.partition("/")[0]
            assert found == {
                f"{region}/core-{region}-{n}" for n in ((1, 2) if region == "eu" else (1,))
            }
        elif kind == "keys":
            member = rest.rsplit("-", 2)
            expected = f"operators/{rest}" if len(member) == 1 else f"{member[1]}/{rest}"
            assert found == (set() if rest == ROOT else {expected})
        elif rest.endswith(("/application.seed", "/plain.seed")):
            region = rest.partition("/")[0]  # with the administrator only
            assert found == {f"operators/alice/{region}"}
        else:
            assert found == set(), name


def test_a_plan_grows_and_keeps_every_key(desk):
    desk.init()
    before = {n: d for n, d in tree(desk.authority).items() if n.endswith((".seed", "/ca.key"))}
    keys = tree(desk.authority / "keys")
    desk.plan.write_text(PLAN.replace("cores = 1", "cores = 2") + EXTRA_REGION)
    made = desk.init()
    assert made["roster"] == 2
    found = {one["bundle"]: one["change"] for one in made["bundles"]}
    assert found["ap/core-ap-1"] == found["us/core-us-2"] == "made"
    assert found["us/push"] == found["backbone/backbone-1"] == "changed"
    assert "carry" in made["next"][0]
    assert f"`kcm broker push {desk.made / 'us/push'}`" in made["next"]
    assert "`kcm roster put" in made["next"][-1]
    after = tree(desk.authority)
    assert {name: after[name] for name in before} == before
    assert {name: after[f"keys/{name}"] for name in keys} == keys
    assert (desk.made / "us" / "core-us-2" / "seal-key").is_file()
    assert (desk.made / "ap" / "ap-1" / "nats.conf").is_file()
    # The other regions may pull from the new one: their accounts of the backbone have changed.
    text = (desk.made / "backbone" / "backbone-1" / "nats.conf").read_text()
    token = (desk.authority / "realms/backbone/accounts/eu/token.jwt").read_text()
    assert token in text


EXTRA_REGION = '[regions.ap]\nservers = ["10.1.0.1"]\n'


def test_an_instance_does_not_vanish_from_the_roster(desk):
    desk.init()
    error = desk.refused(
        PLAN.replace("cores = 2", "cores = 1"), "core-eu-2", "kcm roster retire", code=Exit.FAULT
    )
    assert "not in the plan" in error["detail"]


def test_a_retired_instance_gets_nothing_any_more(desk):
    desk.init()
    retire(desk.authority, "core-eu-2")
    shutil.rmtree(desk.made / "eu" / "core-eu-2")
    made = desk.init()
    assert made["roster"] == 2
    assert not (desk.made / "eu" / "core-eu-2").exists()
    desk.plan.write_text(PLAN.replace("cores = 2", "cores = 1"))
    assert desk.init()["roster"] == 2
    roster = known_roster(desk.authority)
    assert [one.instance for one in roster.instances if one.retired] == ["core-eu-2"]


def retire(authority, name):
    trust, roster = Trust(authority), known_roster(authority)
    retired = Retirement(endorsements=bytes(32), count=0)
    instances = [
        one.model_copy(update={"retired": retired}) if one.instance == name else one
        for one in roster.instances
    ]
    changed = roster.model_copy(update={"version": 2, "instances": instances})
    root = load_identity(ROOT, str(trust.key(ROOT)), "acme")
    trust.roster.write_bytes(encode(root.sign(Kind.ROSTER, changed)))


def test_another_system_and_a_foreign_roster_are_refused(desk):
    desk.init()
    desk.refused(PLAN.replace("acme", "other"), "the name of a system", code=Exit.FAULT)
    Trust(desk.authority).roster.write_bytes(b"something")
    desk.refused(PLAN, "not signed by the operator root", code=Exit.FAULT)


def test_bundles_without_their_authority_are_not_made_again(desk):
    desk.init()
    moved = desk.directory / "elsewhere"
    desk.authority.rename(moved)
    desk.refused(PLAN, "has files")
    desk.authority.mkdir()
    desk.refused(PLAN, "authority is missing", "backup", code=Exit.FAULT)
    desk.authority.rmdir()
    moved.rename(desk.authority)
    desk.init()


def test_a_directory_of_something_else_is_left_alone(desk):
    desk.made.mkdir()
    (desk.made / "thesis.txt").write_text("years of work")
    desk.refused(PLAN, "has files", "--dir")


def test_an_unreadable_key_stops_it_before_a_bundle_changes(desk):
    desk.init()
    path = desk.authority / "realms" / "eu" / "signer.seed"
    path.chmod(0o644)
    desk.refused(PLAN, "can be read by others", code=Exit.FAULT)


def test_clients_may_see_certificates_of_another_authority(desk, capsys):
    other = Authority.create("corp", 10, SystemClock())
    (desk.directory / "corp.pem").write_bytes(other.certificate)
    desk.plan.write_text(PLAN.replace('["10.0.0.1"]', '["10.0.0.1"]\nca = "corp.pem"'))
    desk.init()
    server = desk.made / "us" / "us-1"
    settings = json.loads((server / "nats.conf").read_text())
    assert settings["tls"]["cert_file"] == "/etc/nats/clients.pem"
    assert settings["leafnodes"]["remotes"][0]["tls"]["cert_file"] == "/etc/nats/link.pem"
    for bundle in ("us/core-us-1", "us/provision", "us/push", "operators/bob/us"):
        assert (desk.made / bundle / "ca.pem").read_bytes() == other.certificate
    assert (desk.made / "eu/core-eu-1/ca.pem").read_bytes() != other.certificate


def test_without_a_plan_it_says_how_to_begin(capsys):
    assert run(["init"]) == Exit.USAGE
    assert "--example" in capsys.readouterr().err


def test_two_commands_do_not_write_at_once(desk):
    import fcntl

    desk.init()
    with (desk.made / ".lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        desk.refused(PLAN, "another command", code=Exit.FAULT)


def test_a_full_disk_is_named_and_the_next_time_finishes(desk, monkeypatch):
    from kcm_deployment import bundles

    real, left = bundles.write_private, [3]

    def write(path, content):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(bundles, "write_private", write)
    error = desk.init(expect=Exit.FAULT)
    assert "No space left" in error["detail"]
    assert Path(error["detail"].partition(":")[0]).is_relative_to(desk.made)
    monkeypatch.undo()
    desk.init()
