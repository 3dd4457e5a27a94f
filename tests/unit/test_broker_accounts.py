"""Accounts as claims: scopes, revocations, limits, and what passes between regions."""

import pytest
from kcm_broker import accounts, tokens
from kcm_broker.accounts import Revocation, ScopeId
from kcm_broker.claims import User, Validity, verify_account
from kcm_broker.roles import Account, Role
from kcm_broker.tokens import TokenKind
from kcm_schemas.codes import Code, KcmError

from tests.unit.broker_rig import NOW, StoppedClock, account, operator, user

INSTANCES = [(Role.CORE, "core-1"), (Role.CORE, "core-2"), (Role.GATEWAY, "gateway-1")]


def scopes(place):
    return {scope: account().public for scope in accounts.scopes_of(place, INSTANCES)}


def body(place=Account.REGION, revocations=(), **named):
    return accounts.account_body("eu", place, scopes(place), revocations, now_s=NOW, **named)


def refused(code, call, *arguments, **named):
    with pytest.raises(KcmError) as caught:
        call(*arguments, **named)
    assert caught.value.code is code
    return caught.value


def test_an_account_has_a_scope_for_each_instance_and_for_each_other_role():
    found = accounts.scopes_of(Account.REGION, INSTANCES)
    named = {f"{one.role} {one.instance}".strip() for one in found}
    assert named == {
        "core core-1",
        "core core-2",
        "gateway gateway-1",
        "application",
        "plain",
        "embedded",
        "operator",
        "provisioner",
    }
    assert {one.role for one in accounts.scopes_of(Account.VAULT, INSTANCES)} == {
        Role.CORE,
        Role.PROVISIONER,
    }
    assert accounts.scopes_of(Account.SYSTEM, INSTANCES) == [ScopeId(Role.PUSHER, Account.SYSTEM)]


def test_every_scope_is_a_template_of_its_role():
    made = body()
    assert {one["kind"] for one in made["signing_keys"]} == {"user_scope"}
    roles = [one["role"] for one in made["signing_keys"]]
    assert roles == sorted(set(roles))
    one = next(one for one in made["signing_keys"] if one["role"] == "core-core-2")
    assert "kcm.v1.eu.audit.core-2" in one["template"]["pub"]["allow"]
    assert "resp" not in str(made)


@pytest.mark.parametrize("place", list(Account))
def test_only_accounts_with_streams_may_have_some(place):
    limits = body(place)["limits"]
    assert ("disk_storage" in limits) == (place in (Account.REGION, Account.VAULT))
    assert limits["wildcards"] is True


def test_a_scope_of_another_account_or_kind_of_key_is_refused():
    wrong = {ScopeId(Role.CORE, Account.VAULT, "core-1"): account().public}
    refused(Code.MALFORMED, accounts.account_body, "eu", Account.REGION, wrong, now_s=NOW)
    bad = {ScopeId(Role.OPERATOR, Account.REGION): user().public}
    refused(Code.MALFORMED, accounts.account_body, "eu", Account.REGION, bad, now_s=NOW)
    same = account().public
    twice = {
        ScopeId(Role.OPERATOR, Account.REGION): same,
        ScopeId(Role.APPLICATION, Account.REGION): same,
    }
    refused(Code.MALFORMED, accounts.account_body, "eu", Account.REGION, twice, now_s=NOW)


def test_revocations_that_have_no_effect_any_more_are_dropped():
    ended, lasting, ever = user().public, user().public, user().public
    found = accounts.live(
        [
            Revocation(ended, NOW - 9, NOW),
            Revocation(lasting, NOW - 9, NOW + 1),
            Revocation(ever, NOW - 9),
            Revocation(ever, NOW - 5),
            Revocation(ever, NOW - 7),
        ],
        NOW,
    )
    assert found == {lasting: NOW - 9, ever: NOW - 5}
    assert body(revocations=[Revocation(ever, NOW)])["revocations"] == {ever: NOW}
    assert "revocations" not in body()


@pytest.mark.parametrize("key", ["*", "", "U", "A" * 56])
def test_only_users_are_revoked(key):
    refused(Code.MALFORMED, accounts.live, [Revocation(key, NOW)], NOW)


def test_an_account_that_could_not_be_pushed_is_refused_before():
    many = [Revocation(user().public, NOW) for _ in range(accounts.REVOCATIONS_MAX + 1)]
    error = refused(Code.TOO_LARGE, accounts.live, many, NOW)
    assert "expire" in error.detail
    full = body(revocations=many[1:])
    token = accounts.issue_account(
        operator(), account().public, Account.REGION, full, StoppedClock()
    )
    assert len(token) < tokens.TOKEN_MAX
    wide = full | {"description": "x" * tokens.TOKEN_MAX}
    refused(
        Code.TOO_LARGE,
        accounts.issue_account,
        operator(),
        account().public,
        Account.REGION,
        wide,
        StoppedClock(),
    )


def test_an_account_is_issued_later_than_the_one_before():
    clock, signer, home = StoppedClock(), operator(), account().public
    first = accounts.issue_account(signer, home, Account.REGION, body(), clock)
    claims = verify_account(first, {signer.public})
    second = accounts.issue_account(signer, home, Account.REGION, body(), clock, claims)
    assert verify_account(second, {signer.public}).issued == claims.issued + 1 == NOW + 1
    clock.now -= 10_000
    refused(
        Code.CONFLICT,
        accounts.issue_account,
        signer,
        home,
        Account.REGION,
        body(),
        clock,
        claims,
    )


def test_a_revocation_covers_a_token_of_a_clock_that_was_ahead():
    clock, key, home = StoppedClock(NOW + 100), account(), account().public
    scope = ScopeId(Role.APPLICATION, Account.REGION)
    one = User(user().public, "shop", ("decrypt.acme.mail",), Validity(0, NOW + 500))
    token = accounts.issue_user(key, scope, home, one, clock)
    claims = tokens.verify(token, TokenKind.USER, {key.public})
    assert accounts.revoke(claims, NOW) == Revocation(one.public, NOW + 100, NOW + 500)
    assert accounts.revoke(claims, NOW + 200).at == NOW + 200


def test_a_user_of_an_instance_has_its_name_and_no_grants():
    key, home = account(), account().public
    scope = ScopeId(Role.CORE, Account.REGION, "core-1")
    clock = StoppedClock()
    accounts.issue_user(key, scope, home, User(user().public, "core-1"), clock)
    other = User(user().public, "core-2")
    refused(Code.MALFORMED, accounts.issue_user, key, scope, home, other, clock)
    granted = User(user().public, "core-1", ("decrypt.acme.mail",))
    refused(Code.MALFORMED, accounts.issue_user, key, scope, home, granted, clock)


def test_what_passes_between_regions_is_what_the_present_backbone_has():
    keys = {"eu": account().public, "us": account().public, "fr": account().public}
    made = accounts.peering_of("eu", keys)
    exported = {(one["type"], one["subject"]) for one in made.exports}
    assert exported == {
        ("stream", "kcm.v1.ctl.hold.eu.>"),
        ("stream", "kcm.v1.ctl.receipt.eu.>"),
        ("stream", "kcm.v1.ctl.probe.eu.>"),
        ("service", "kcm.v1.ctl.pull.eu.us"),
        ("service", "kcm.v1.ctl.pull.eu.fr"),
    }
    imported = {(one["type"], one["subject"], one["account"]) for one in made.imports}
    assert imported == {
        entry
        for other in ("us", "fr")
        for entry in (
            *(("stream", subject, keys[other]) for subject in accounts.spoken_by(other)),
            ("service", f"kcm.v1.ctl.pull.{other}.eu", keys[other]),
        )
    }
    refused(Code.MALFORMED, accounts.peering_of, "de", keys)
    refused(Code.MALFORMED, accounts.peering_of, "eu", keys | {"*": account().public})
    refused(Code.MALFORMED, accounts.peering_of, "ctl", keys | {"ctl": account().public})
