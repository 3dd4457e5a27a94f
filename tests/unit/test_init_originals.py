"""``kcm init`` makes no key again that was in use, and begins from no old backup."""

import shutil

import pytest
from kcm.exit_codes import Exit
from kcm_deployment.trust_files import Trust, known_roster
from kcm_runtime.files.identity_file import load_identity
from kcm_schemas.codec import encode
from kcm_schemas.roster import Grant
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT

from tests.unit.test_init import EXTRA_REGION, PLAN, Desk, tree


@pytest.fixture
def desk(tmp_path, capsys):
    made = Desk(tmp_path, capsys)
    made.init()
    return made


ORIGINALS = [
    "keys/root",
    "keys/alice",
    "keys/core-eu-1",
    "roster",
    "secrets/eu/seal-key",
    "realms/eu/operator.seed",
    "realms/eu/signer.seed",
    "realms/eu/accounts/region/account.seed",
    "realms/eu/accounts/vault/core.core-eu-1.seed",
    "realms/backbone/accounts/us/account.seed",
]


@pytest.mark.parametrize("name", ORIGINALS)
def test_an_original_that_is_missing_is_not_made_again(desk, name):
    before = tree(desk.made)
    path = desk.authority / name
    kept = path.read_bytes()
    path.unlink()
    error = desk.init(expect=Exit.FAULT)
    assert path.name.removesuffix(".seed") in error["detail"]
    path.touch(mode=0o600)
    path.write_bytes(kept)
    assert tree(desk.made) == before
    desk.init()


def test_another_key_in_the_place_of_an_original_is_refused(desk):
    path = desk.authority / "keys" / "alice"
    path.write_bytes(bytes(range(32)))
    desk.refused(PLAN, "not the key on the roster", "backup", code=Exit.FAULT)


def test_an_old_backup_is_noticed_by_the_roster_of_a_bundle(desk):
    old = desk.directory / "backup"
    shutil.copytree(desk.authority, old)
    desk.plan.write_text(PLAN + EXTRA_REGION)
    desk.init()
    shutil.rmtree(desk.authority)
    shutil.copytree(old, desk.authority)
    desk.refused(PLAN + EXTRA_REGION, "version 2 of the roster", "backup", code=Exit.FAULT)


def test_an_old_backup_is_noticed_by_a_servers_accounts(desk):
    """Otherwise it would let a user in that was revoked since."""
    from kcm.cli.main import run

    old = desk.directory / "backup"
    shutil.copytree(desk.authority, old)
    arguments = ["--dir", str(desk.made), "--region", "eu", "--instance", "core-eu-1"]
    assert run(["broker", "revoke", *arguments]) == Exit.OK
    desk.init()
    shutil.rmtree(desk.authority)
    shutil.copytree(old, desk.authority)
    desk.refused(PLAN, "has a later account", "backup", code=Exit.FAULT)


def test_narrower_grants_of_a_gateway_stay(desk):
    trust, roster = Trust(desk.authority), known_roster(desk.authority)
    narrow = [Grant(tenant="acme", service="mail")]
    instances = [
        one.model_copy(update={"grants": narrow}) if one.grants else one for one in roster.instances
    ]
    changed = roster.model_copy(update={"version": 2, "instances": instances})
    root = load_identity(ROOT, str(trust.key(ROOT)), "acme")
    trust.roster.write_bytes(encode(root.sign(Kind.ROSTER, changed)))
    desk.plan.write_text(PLAN + EXTRA_REGION)
    assert desk.init()["roster"] == 3
    grants = {one.instance: one.grants for one in known_roster(desk.authority).instances}
    assert grants["gateway-eu-1"] == narrow
    assert grants["gateway-ap-1"] == [Grant(tenant="*", service="*")]


@pytest.mark.parametrize(
    "region", ["system", "backbone", "links", "authority", "operators", "vault"]
)
def test_a_region_has_no_name_that_means_something_else(tmp_path, capsys, region):
    desk = Desk(tmp_path, capsys)
    desk.refused(PLAN.replace("regions.us", f"regions.{region}"), region)
    assert not desk.made.exists()


def test_no_operator_is_the_root(tmp_path, capsys):
    desk = Desk(tmp_path, capsys)
    desk.refused(PLAN.replace('"bob"', '"root"'), "operator root")
    assert not desk.made.exists()


def test_an_operator_who_retires_is_let_in_no_more(desk):
    from kcm_broker.claims import verify_account
    from kcm_broker.realm import Realm
    from kcm_runtime.clock import SystemClock
    from kcm_runtime.nats import credentials
    from kcm_schemas.roster import Retirement

    user = credentials.read(desk.made / "operators/bob/eu/operator.creds").key.public
    trust, roster = Trust(desk.authority), known_roster(desk.authority)
    retired = Retirement(endorsements=bytes(32), count=0)
    people = [
        one.model_copy(update={"retired": retired}) if one.operator == "bob" else one
        for one in roster.operators
    ]
    changed = roster.model_copy(update={"version": 2, "operators": people})
    root = load_identity(ROOT, str(trust.key(ROOT)), "acme")
    trust.roster.write_bytes(encode(root.sign(Kind.ROSTER, changed)))
    desk.init()
    realm = Realm(desk.authority / "realms" / "eu", "eu", SystemClock())
    token = (desk.authority / "realms/eu/accounts/region/token.jwt").read_text()
    assert user in verify_account(token, realm.operators).body["revocations"]
