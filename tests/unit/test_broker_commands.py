"""``kcm broker revoke`` and ``maintenance``: they change the files of a deployment."""

import json

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_broker import signers
from kcm_broker.claims import verify_account, verify_user
from kcm_broker.realm import Realm
from kcm_broker.roles import Role
from kcm_deployment.bundles import AUTHORITY, write_bundles
from kcm_deployment.deployment import Deployment, RegionPlan, Server
from kcm_deployment.layouts import SYSTEMD
from kcm_deployment.locking import exclusive
from kcm_deployment.members import Member, Person
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats import credentials
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import OperatorRole
from kcm_schemas.roster import Role as Instances

PUBLIC = bytes(range(32))


class Desk:
    def __init__(self, directory, capsys):
        self.made, self._capsys = directory / "deployment", capsys
        self.write()

    def write(self):
        """What ``kcm init`` does."""
        members = tuple(Member(role, "eu", 1) for role in Instances)
        region = RegionPlan("eu", (Server("eu-1", "n.example"),), members)
        people = (Person("alice", (OperatorRole.ADMIN,)),)
        plan = Deployment("acme", (region,), (Server("backbone-1", "b.example"),), people)
        write_bundles(self.made, plan, SYSTEMD, 1)

    def broker(self, *words, expect=Exit.OK):
        self._capsys.readouterr()
        code = run(["broker", *words, "--dir", str(self.made), "-o", "json"])
        said = self._capsys.readouterr()
        assert code == expect, said.err
        return json.loads(said.out) if code == Exit.OK else json.loads(said.err.splitlines()[-1])

    @property
    def realm(self):
        return Realm(self.made / AUTHORITY / "realms" / "eu", "eu", SystemClock())

    def account(self, name):
        token = (self.made / AUTHORITY / f"realms/eu/accounts/{name}/token.jwt").read_text()
        return verify_account(token, self.realm.operators)


@pytest.fixture
def desk(tmp_path, capsys):
    return Desk(tmp_path, capsys)


def user_of(path):
    return credentials.read(path).key.public


def test_an_instance_is_revoked_in_each_account_and_gets_new_credentials(desk):
    core = desk.made / "eu" / "core-eu-1"
    old = {name: user_of(core / f"{name}-bus") for name in ("region", "control", "vault")}
    before = desk.account("region")
    said = desk.broker("revoke", "--region", "eu", "--instance", "core-eu-1")
    assert sorted(said["revoked"]) == sorted(old.values())
    desk.write()
    for name, user in old.items():
        assert set(desk.account(name).body["revocations"]) == {user}
        assert user_of(core / f"{name}-bus") != user
    assert desk.account("region").issued > before.issued
    push = (desk.made / "eu" / "push" / "config.toml").read_text()
    assert all(desk.account(name).token in push for name in old)
    desk.write()  # a revocation is not forgotten
    assert set(desk.account("vault").body["revocations"]) == {old["vault"]}


def test_an_application_is_revoked_by_its_name_and_key(desk):
    mine = signers.read(desk.made / "operators" / "alice" / "eu" / "signers")
    users = {mine.user_key(role, "shop", PUBLIC).public for role in signers.SIGNED}
    options = ("--region", "eu", "--app", "shop", "--public-key", PUBLIC.hex())
    assert set(desk.broker("revoke", *options)["revoked"]) == users
    desk.write()
    assert set(desk.account("region").body["revocations"]) == users
    assert "revocations" not in desk.account("vault").body


def test_keys_of_users_differ_by_role_name_and_key(desk):
    mine = signers.read(desk.made / AUTHORITY / "users" / "eu" / "signers")
    wanted = [
        (Role.APPLICATION, "shop", PUBLIC),
        (Role.PLAIN, "shop", PUBLIC),
        (Role.APPLICATION, "shop2", PUBLIC),
        (Role.APPLICATION, "shop", bytes(32)),
    ]
    assert len({mine.user_key(*one).public for one in wanted}) == len(wanted)
    assert mine.user_key(*wanted[0]).public == mine.user_key(*wanted[0]).public
    assert mine.user_key(*wanted[0]).seed() not in repr(mine.user_key(*wanted[0]))


def test_a_list_of_revocations_that_cannot_be_read_stops_everything(desk):
    desk.broker("revoke", "--region", "eu", "--instance", "core-eu-1")
    path = desk.made / AUTHORITY / "realms/eu/accounts/vault/revoked.json"
    path.write_text("[{")
    error = desk.broker("revoke", "--region", "eu", "--instance", "gateway-eu-1")
    assert error["revoked"]  # of the accounts that are whole
    with pytest.raises(KcmError, match="not a list of revocations"):
        desk.write()


def test_maintenance_ends_and_may_do_everything_in_one_account(desk, tmp_path):
    path = tmp_path / "work.creds"
    said = desk.broker("maintenance", "--region", "eu", "--account", "vault", "--to", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    vault = desk.account("vault")
    (scope,) = [one for one in vault.body["signing_keys"] if one["role"] == "maintenance"]
    assert not {"pub", "sub"} & set(scope["template"])
    now_s = SystemClock().unix_ms() // 1000
    claims = verify_user(credentials.read(path).token, vault.subject, {scope["key"]}, now_s)
    assert claims.expires == said["until"] <= now_s + 2 * 3600 + 1
    control = desk.account("control")
    assert "maintenance" not in {one["role"] for one in control.body["signing_keys"]}
    error = desk.broker(
        "maintenance", "--region", "eu", "--account", "vault", "--to", str(path),
        expect=Exit.USAGE,
    )  # fmt: skip
    assert "exists already" in error["detail"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("revoke", "--region", "eu"), "whose credentials"),
        (("revoke", "--region", "eu", "--app", "shop"), "whose credentials"),
        (("revoke", "--region", "eu", "--app", "a", "--public-key", "zz"), "public key"),
        (("revoke", "--region", "eu", "--instance", "core-eu-9"), "no credentials of core-eu-9"),
        (("revoke", "--region", "us", "--instance", "core-eu-1"), "no region us"),
        (("maintenance", "--region", "eu", "--account", "system", "--to", "x"), "system"),
        (
            ("maintenance", "--region", "eu", "--account", "vault", "--to", "x", "--hours", "25"),
            "25",
        ),
    ],
)
def test_wrong_input_changes_nothing(desk, words, text):
    (desk.made / ".lock").touch(mode=0o600)
    before = {path: path.read_bytes() for path in desk.made.rglob("*") if path.is_file()}
    assert text in desk.broker(*words, expect=Exit.USAGE)["detail"]
    assert {path: path.read_bytes() for path in desk.made.rglob("*") if path.is_file()} == before


def test_other_commands_wait_their_turn(desk):
    with exclusive(desk.made):
        error = desk.broker(
            "revoke", "--region", "eu", "--instance", "core-eu-1", expect=Exit.FAULT
        )
    assert "another command" in error["detail"]


def test_new_signers_end_all_credentials_of_applications(desk):
    path = desk.made / "operators" / "alice" / "eu" / "signers"
    old = signers.read(path)
    desk.broker("revoke", "--region", "eu", "--operator", "alice", "--signers")
    desk.write()
    new = signers.read(path)
    keys = {one["key"] for one in desk.account("region").body["signing_keys"]}
    for role in signers.SIGNED:
        assert old.keys[role].public not in keys
        assert new.keys[role].public in keys


def test_setup_is_revoked_and_made_again(desk):
    names = ("eu/provision/region-bus", "eu/provision/vault-bus", "eu/push/system-bus")
    old = [user_of(desk.made / name) for name in names]
    said = desk.broker("revoke", "--region", "eu", "--setup")
    assert sorted(said["revoked"]) == sorted(old)
    desk.write()
    assert not {user_of(desk.made / name) for name in names} & set(old)
    assert old[2] in desk.account("system").body["revocations"]
