"""Which credentials a broker takes, and how they end."""

import re
from dataclasses import replace

import pytest
from kcm_broker import accounts, tokens
from kcm_broker.claims import User, Validity
from kcm_broker.resolver import SystemAccount
from kcm_broker.roles import Account
from kcm_broker.server_subjects import SYSTEM_UPDATE
from kcm_broker.tokens import TokenKind
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.nkeys import KeyKind, SigningKey
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats.errors import Error, NoServersError

from tests.integration import broker_rig as rig

APP = rig.scope("application", "region")
PUSHER = rig.scope("pusher", "system")
GRANT = "encrypt.acme.mail"


@pytest.fixture
async def region(tmp_path):
    async with rig.running(tmp_path) as one:
        yield one


def unscoped(realm, **own):
    """A token of the right key with rights of its own."""
    key = SigningKey.generate(KeyKind.USER)
    home = realm.accounts[Account.REGION].public
    body = {"issuer_account": home, "tags": [f"grant:{GRANT}"]} | own
    claims = {"name": "shop", "iat": rig.now_s(), "nats": body}
    signer = realm.scopes[Account.REGION][APP]
    return Credentials(tokens.sign(signer, TokenKind.USER, key.public, claims), key)


def swapped_key(realm):
    made = realm.user(APP, grants=(GRANT,))
    return replace(made, key=SigningKey.generate(KeyKind.USER))


def by_account_key(realm):
    """A token that a key signed which is no scope of the account."""
    key = SigningKey.generate(KeyKind.USER)
    home = realm.accounts[Account.REGION].public
    stray = SigningKey.generate(KeyKind.ACCOUNT)
    user = User(key.public, "shop")
    return Credentials(accounts.issue_user(stray, APP, home, user, rig.CLOCK), key)


def of_another_account(realm):
    """A token for one account, signed by a scope of another one."""
    key = SigningKey.generate(KeyKind.USER)
    scope = rig.scope("core", "vault", "core-1")
    home = realm.accounts[Account.REGION].public
    signer = realm.scopes[Account.VAULT][scope]
    user = User(key.public, "core-1")
    return Credentials(accounts.issue_user(signer, scope, home, user, rig.CLOCK), key)


BAD = {
    "expired": lambda realm: realm.user(APP, validity=Validity(0, rig.now_s() - 1)),
    "not valid yet": lambda realm: realm.user(APP, validity=Validity(rig.now_s() + 3600)),
    "of a foreign operator": lambda _: rig.region_realm().user(APP, grants=(GRANT,)),
    "with another key": swapped_key,
    "of a key that is no scope": by_account_key,
    "of another account": of_another_account,
    "with own rights": lambda realm: unscoped(realm, pub={"allow": [">"]}),
    "with own limits": lambda realm: unscoped(realm, subs=-1),
    "of a leaf node's type": lambda realm: unscoped(realm, allowed_connection_types=["LEAFNODE"]),
}


async def refused(region, made):
    """Whether the broker refuses a login."""
    try:
        await region.join(APP, made)
    except Error as error:
        said = re.search("(?i)authorization|expired", str(error))
        assert said or isinstance(error, NoServersError), error
        return True
    return False


async def test_bad_credentials_are_refused_and_good_ones_are_not(region):
    for what, make in BAD.items():
        assert await refused(region, make(region.realm)), what
    assert (await region.join(APP, grants=(GRANT,))).client.is_connected
    limited = Validity(rig.now_s() - 1, rig.now_s() + 3600)
    assert (await region.join(APP, validity=limited)).client.is_connected


async def test_expiry_ends_a_connection(region):
    made = region.realm.user(APP, validity=Validity(0, rig.now_s() + 2))
    one, stays = await region.join(APP, made), await region.join(APP)
    await rig.until(lambda: one.closed)
    assert stays.client.is_connected

    async def is_refused():  # in the last second, the server may still take it
        return await refused(region, made)

    await rig.until_answer(is_refused)


async def test_a_key_of_one_template_is_no_key_of_another(region):
    """The same claims, signed by the key of applications, do what applications may."""
    operator = rig.scope("operator", "region")
    key = SigningKey.generate(KeyKind.USER)
    home = region.realm.accounts[Account.REGION].public
    signer = region.realm.scopes[Account.REGION][APP]
    token = accounts.issue_user(signer, operator, home, User(key.public, "ann"), rig.CLOCK)
    one = await region.join(operator, Credentials(token, key))
    await one.client.publish(subjects.admin("eu", "hold", "place"))
    await rig.until(lambda: one.errors)
    assert [str(error) for error in one.errors] == [
        'nats: permissions violation for publish to "kcm.v1.eu.admin.hold.place"'
    ]


async def pusher_of(region):
    one = await region.join(PUSHER)
    return one, region.realm.pusher(one.client, 1)


async def test_a_revocation_closes_and_a_rollback_is_refused(region):
    _, pusher = await pusher_of(region)
    made, other = region.realm.user(APP, grants=(GRANT,)), region.realm.user(APP, grants=(GRANT,))
    revoked, stays = await region.join(APP, made), await region.join(APP, other)
    (before,) = await pusher.present(region.realm.accounts[Account.REGION].public)
    claims = tokens.verify(
        made.token, TokenKind.USER, {region.realm.scopes[Account.REGION][APP].public}
    )
    revocation = accounts.revoke(claims, rig.now_s())
    token = region.realm.issue(Account.REGION, revocations=[revocation], after=before)
    pushed = await pusher.push(token)
    assert pushed.nodes == ("eu-1",)
    await rig.until(lambda: revoked.closed)
    assert stays.client.is_connected
    assert not stays.closed
    assert await refused(region, made)

    with pytest.raises(KcmError) as caught:  # it would bring the revoked user back
        await pusher.push(before.token)
    assert caught.value.code is Code.CONFLICT
    assert (await pusher.push(token)).claims.token == token  # again, for a node that was away

    later = region.realm.user(APP, key=made.key, grants=(GRANT,), after=revocation.at)
    assert (await region.join(APP, later)).client.is_connected


async def test_a_renewed_file_counts_at_the_next_connect(region, tmp_path):
    made = region.realm.user(APP, grants=(GRANT,))
    options = {"allow_reconnect": True, "max_reconnect_attempts": -1, "reconnect_time_wait": 0.1}
    one = await rig.connect(region.server, region.ca, made, APP, tmp_path, **options)
    try:
        place, core = "kcm.v1.eu.gateway.gateway-1", one.client
        await core.publish(f"{place}.decrypt.acme.mail")
        await rig.until(lambda: len(one.errors) == 1)
        more = region.realm.user(APP, key=made.key, grants=(GRANT, "decrypt.acme.mail"))
        credentials.write(tmp_path / f"{made.key.public}.creds", more)
        await core.force_reconnect()
        await rig.until(lambda: core.is_connected)
        await core.publish(f"{place}.decrypt.acme.mail")
        await core.publish(f"{place}.decrypt.acme.files")
        await rig.until(lambda: len(one.errors) == 2)
        assert "decrypt.acme.files" in str(one.errors[1])
    finally:
        await core.close()
        rig.abort(core)


class Spy:
    """Nodes that count what they are asked."""

    def __init__(self, nodes):
        self.nodes, self.asked = nodes, []

    async def ask(self, subject, body, answers):
        self.asked.append(subject)
        return await self.nodes.ask(subject, body, answers)


async def test_a_foreign_account_token_is_refused_before_it_is_sent(region):
    one, _ = await pusher_of(region)
    spy = Spy(SystemAccount(one.client, rig.CLOCK))
    pusher = region.realm.pusher(spy)
    foreign = rig.Realm("eu", accounts=region.realm.accounts, scopes=region.realm.scopes)
    with pytest.raises(KcmError) as caught:
        await pusher.push(foreign.issue(Account.REGION))
    assert caught.value.code is Code.FORBIDDEN
    user = region.realm.user(APP).token
    for bad in ("", "a.b.c", user, foreign.issue(Account.REGION) + "x"):
        with pytest.raises(KcmError):
            await pusher.push(bad)
    assert spy.asked == []


async def test_a_foreign_token_that_another_party_pushed_is_noticed_and_replaced(region):
    one, pusher = await pusher_of(region)
    foreign = rig.Realm("eu", accounts=region.realm.accounts, scopes=region.realm.scopes)
    nodes = SystemAccount(one.client, rig.CLOCK)
    await nodes.ask(SYSTEM_UPDATE, foreign.issue(Account.REGION).encode(), 1)
    account = region.realm.accounts[Account.REGION].public
    assert await pusher.present(account) == []
    pushed = await pusher.push(region.realm.issue(Account.REGION))
    assert [one.token for one in await pusher.present(account)] == [pushed.claims.token]
