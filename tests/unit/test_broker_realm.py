"""A broker operator as files: made once, and changed only where the plan changed."""

from dataclasses import replace
from pathlib import Path

import pytest
from kcm_broker.accounts import ScopeId, peering_of
from kcm_broker.claims import GRANT_TAG, Validity, verify_account, verify_operator, verify_user
from kcm_broker.realm import Issuer, Realm, kept_user
from kcm_broker.rights import rights
from kcm_broker.roles import Account, Role
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.nkeys import KeyKind
from kcm_schemas.codes import Code, KcmError

from tests.unit.broker_rig import NOW, StoppedClock, account, user

ONE = (Role.CORE, "core-eu-1")
TWO = (Role.CORE, "core-eu-2")
SHOP = ScopeId(Role.APPLICATION, Account.REGION)


def made(directory, clock=None, rights_of=rights):
    return Realm(directory / "realm", "eu", clock or StoppedClock(), rights_of)


def tree(directory):
    """Every file with its bytes and its inode, which changes when a file is replaced."""
    return {
        path: (path.read_bytes(), path.stat().st_ino)
        for path in directory.rglob("*")
        if path.is_file()
    }


def claims(realm, token):
    return verify_account(token, realm.operators)


def scopes(realm, token):
    return {one["role"]: one["key"] for one in claims(realm, token).body["signing_keys"]}


def test_a_repetition_changes_nothing(tmp_path):
    clock, found, trees = StoppedClock(), [], []
    for _ in range(2):
        realm = made(tmp_path, clock)
        found.append((realm.operator(), *(realm.account(one, [ONE]) for one in Account)))
        realm.user(tmp_path / "core.creds", ScopeId(*_core(ONE)), ONE[1])
        trees.append(tree(tmp_path))
        clock.now += 86_400
    assert found[0] == found[1]
    assert trees[0] == trees[1]


def _core(instance):
    role, name = instance
    return role, Account.REGION, name


def test_the_operator_signs_itself_and_its_signer_signs_the_accounts(tmp_path):
    realm = made(tmp_path)
    root = verify_operator(realm.operator())
    assert root.body["system_account"] == realm.public(Account.SYSTEM)
    (signer,) = root.body["signing_keys"]
    assert realm.operators == {root.subject, signer}
    token = claims(realm, realm.account(Account.REGION))
    assert (token.issuer, token.subject) == (signer, realm.public(Account.REGION))


def test_only_the_owner_reads_a_seed_and_all_are_different(tmp_path):
    realm = made(tmp_path)
    realm.operator()
    for one in Account:
        realm.account(one, [ONE, TWO])
    seeds = list(tmp_path.rglob("*.seed"))
    assert {path.stat().st_mode & 0o777 for path in seeds} == {0o600}
    assert len({path.read_bytes() for path in seeds}) == len(seeds)
    directories = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in directories} == {0o700}


def test_a_new_instance_gives_a_later_token_and_keeps_all_other_keys(tmp_path):
    realm = made(tmp_path)
    first = realm.account(Account.REGION, [ONE])
    seeds = {path: found for path, found in tree(tmp_path).items() if path.suffix == ".seed"}
    second = realm.account(Account.REGION, [ONE, TWO])
    old, new = scopes(realm, first), scopes(realm, second)
    assert set(new) - set(old) == {"core-core-eu-2"}
    assert {role: new[role] for role in old} == old
    assert claims(realm, second).issued > claims(realm, first).issued
    after = tree(tmp_path)
    assert {path: after[path] for path in seeds} == seeds


def test_a_removed_instance_loses_its_scope_and_gets_the_same_key_again(tmp_path):
    realm = made(tmp_path)
    both = scopes(realm, realm.account(Account.REGION, [ONE, TWO]))
    less = realm.account(Account.REGION, [ONE])
    assert set(both) - set(scopes(realm, less)) == {"core-core-eu-2"}
    again = realm.account(Account.REGION, [ONE, TWO])
    assert scopes(realm, again) == both
    assert claims(realm, again).issued > claims(realm, less).issued


def test_other_rights_give_a_later_token_with_the_same_keys(tmp_path):
    def more(role, place, region, instance):
        found = rights(role, place, region, instance)
        return replace(found, publish=(*found.publish, "more"))

    first = made(tmp_path).account(Account.REGION, [ONE])
    realm = made(tmp_path, rights_of=more)
    second = realm.account(Account.REGION, [ONE])
    assert second != first
    assert scopes(realm, second) == scopes(realm, first)


def test_further_keys_of_an_account_are_its_scopes_too(tmp_path):
    realm = made(tmp_path)
    more = {"kind": "user_scope", "key": account().public, "role": "visitor", "template": {}}
    token = realm.account(Account.REGION, more=[more])
    assert scopes(realm, token)["visitor"] == more["key"]
    assert realm.account(Account.REGION, more=[more]) == token
    assert "visitor" not in scopes(realm, realm.account(Account.REGION))


def test_the_accounts_of_the_backbone_have_the_names_of_regions(tmp_path):
    realm = Realm(tmp_path, "backbone", StoppedClock())
    keys = {region: realm.public(region) for region in ("eu", "us")}
    assert len(set(keys.values())) == 2
    for region, public in keys.items():
        peering = peering_of(region, keys)
        token = realm.account(Account.BACKBONE, label=region, peering=peering)
        assert claims(realm, token).subject == public
        assert realm.account(Account.BACKBONE, label=region, peering=peering) == token
        path = tmp_path / f"{region}.creds"
        realm.user(path, ScopeId(Role.LEAF, Account.BACKBONE), region, label=region)
        scope = realm.scope(ScopeId(Role.LEAF, Account.BACKBONE), region)
        assert verify_user(credentials.read(path).token, public, {scope.public}, NOW)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a.b.c", b"no token", None])
def test_a_token_that_is_not_ours_is_replaced(tmp_path, content):
    realm = made(tmp_path)
    realm.operator()
    realm.account(Account.REGION, [ONE])
    keys = scopes(realm, realm.account(Account.REGION, [ONE]))
    if content is None:  # another operator's, which is good there
        other = made(tmp_path / "other")
        foreign = {"operator": other.operator(), "account": other.account(Account.REGION, [ONE])}
    else:
        foreign = dict.fromkeys(("operator", "account"), content.decode("latin-1"))
    top = tmp_path / "realm"
    (top / "operator.jwt").write_text(foreign["operator"], "latin-1")
    (top / "accounts" / "region" / "token.jwt").write_text(foreign["account"], "latin-1")
    realm = made(tmp_path)
    assert {verify_operator(realm.operator()).subject} <= realm.operators
    assert scopes(realm, realm.account(Account.REGION, [ONE])) == keys


@pytest.mark.parametrize("name", ["operator.seed", "signer.seed"])
def test_a_seed_that_cannot_be_used_is_not_replaced(tmp_path, name):
    made(tmp_path).account(Account.REGION)
    path = tmp_path / "realm" / name
    good = path.read_bytes()
    path.chmod(0o644)
    with pytest.raises(SecretFileError, match=name):
        made(tmp_path)
    path.chmod(0o600)
    path.write_text(f"{account().seed()}\n")
    with pytest.raises(KcmError, match=name) as caught:
        made(tmp_path)
    assert caught.value.code is Code.MALFORMED
    path.write_bytes(good)
    assert made(tmp_path)


def test_a_token_of_a_later_time_is_not_replaced(tmp_path):
    made(tmp_path, StoppedClock(NOW + 86_400)).account(Account.REGION, [ONE])
    with pytest.raises(KcmError, match="check the clock"):
        made(tmp_path).account(Account.REGION, [ONE, TWO])


class Shop:
    """The credentials of one application."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "apps" / "shop.creds"
        self.clock = StoppedClock()
        self.signer = account()
        self.account = account().public

    def keep(self, *grants, validity=None):
        more = {} if validity is None else {"validity": validity}
        issuer = Issuer(self.signer, SHOP, self.account, self.clock)
        return kept_user(self.path, issuer, "shop", grants, **more)

    @property
    def key(self):
        return credentials.read(self.path).key.public

    @property
    def claims(self):
        token = credentials.read(self.path).token
        return verify_user(token, self.account, {self.signer.public}, self.clock.now)

    def tags(self):
        return self.claims.body.get("tags", [])


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def test_a_users_file_is_kept_while_it_is_valid(shop):
    assert shop.keep("decrypt.acme.mail", "encrypt.acme.mail")
    before = tree(shop.path.parent)
    assert shop.path.stat().st_mode & 0o777 == 0o600
    assert shop.tags() == [f"{GRANT_TAG}:{verb}.acme.mail" for verb in ("decrypt", "encrypt")]
    shop.clock.now += 86_400
    assert not shop.keep("encrypt.acme.mail", "decrypt.acme.mail", "decrypt.acme.mail")
    assert tree(shop.path.parent) == before


def test_other_grants_give_a_later_token_for_the_same_key(shop):
    shop.keep("decrypt.acme.mail")
    key, issued = shop.key, shop.claims.issued
    assert shop.keep("decrypt.acme.*")
    assert shop.key == key
    assert shop.claims.issued > issued
    assert shop.tags() == [f"{GRANT_TAG}:decrypt.acme.*"]


def test_a_token_is_replaced_when_it_expired_or_when_its_times_change(shop):
    shop.keep("decrypt.acme.mail", validity=Validity(0, NOW + 100))
    key = shop.key
    assert not shop.keep("decrypt.acme.mail", validity=Validity(0, NOW + 100))
    assert shop.keep("decrypt.acme.mail", validity=Validity(0, NOW + 200))
    shop.clock.now = NOW + 201
    assert shop.keep("decrypt.acme.mail", validity=Validity(0, NOW + 300))
    assert shop.key == key
    assert shop.claims.expires == NOW + 300


def test_another_signer_or_account_gives_another_token_for_the_same_key(shop):
    shop.keep("decrypt.acme.mail")
    key = shop.key
    shop.signer = account()
    assert shop.keep("decrypt.acme.mail")
    assert (shop.key, shop.claims.issuer) == (key, shop.signer.public)
    shop.account = account().public
    assert shop.keep("decrypt.acme.mail")
    assert shop.key == key
    assert shop.claims


def test_a_token_of_another_key_is_replaced(shop):
    shop.keep("decrypt.acme.mail")
    other = user()
    credentials.write(shop.path, Credentials(credentials.read(shop.path).token, other))
    assert shop.keep("decrypt.acme.mail")
    assert shop.claims.subject == shop.key == other.public


def test_a_file_that_others_could_read_is_refused(shop):
    """Its user has to be revoked, so nothing may forget the key."""
    shop.keep("decrypt.acme.mail")
    shop.path.chmod(0o644)
    before = shop.path.read_bytes()
    with pytest.raises(SecretFileError, match="can be read by others"):
        shop.keep("decrypt.acme.files")
    assert shop.path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"x" * (credentials.FILE_MAX + 1)])
def test_a_file_without_credentials_is_replaced(shop, content):
    shop.path.parent.mkdir()
    shop.path.write_bytes(content)
    shop.path.chmod(0o600)
    assert shop.keep("decrypt.acme.mail")
    assert shop.claims


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(shop):
    shop.path.parent.write_text("a file where a directory has to be")
    with pytest.raises(OSError, match=r"apps"):
        shop.keep("decrypt.acme.mail")


@pytest.mark.parametrize("grant", ["decrypt.acme", "wrap.acme.mail", "decrypt.acme.>"])
def test_a_bad_grant_leaves_the_file_as_it_is(shop, grant):
    shop.keep("decrypt.acme.mail")
    before = tree(shop.path.parent)
    with pytest.raises(KcmError):
        shop.keep(grant)
    assert tree(shop.path.parent) == before


def test_the_key_of_an_instance_signs_its_own_user_only(tmp_path):
    realm, scope = made(tmp_path), ScopeId(*_core(ONE))
    with pytest.raises(KcmError, match="instance's name"):
        realm.user(tmp_path / "x.creds", scope, "core-eu-2")
    assert not (tmp_path / "x.creds").exists()
    assert realm.scope(scope).kind is KeyKind.ACCOUNT
    assert realm.own_scope().account == realm.public(Account.SYSTEM)
