"""Operators, accounts and users as signed claims."""

import base64
import json

import pytest
from kcm_broker import tokens
from kcm_broker.claims import (
    APPLICATION_VERBS,
    EMBEDDED_VERBS,
    GRANTS_MAX,
    User,
    Validity,
    account_token,
    issued_at,
    operator_token,
    user_token,
    verify_account,
    verify_operator,
    verify_user,
)
from kcm_broker.tokens import TokenKind
from kcm_runtime.nats.nkeys import SigningKey
from kcm_schemas.codes import Code, KcmError

from tests.unit.broker_rig import NOW, StoppedClock, account, operator, user

GRANT = "decrypt.acme.mail"


def decoded(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def encoded(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def a_user(**changes):
    named = {"public": user().public, "name": "shop", "grants": (GRANT,)} | changes
    return User(**named)


def sign_user(one, key=None, home=None, verbs=APPLICATION_VERBS, issued=NOW):
    home = home or account()
    return user_token(key or account(), home.public, one, issued, verbs)


def refused(code, call, *arguments, **named):
    with pytest.raises(KcmError) as caught:
        call(*arguments, **named)
    assert caught.value.code is code, caught.value
    return caught.value


def test_a_user_has_its_account_and_tags_and_nothing_else():
    key, home, mine = account(), account(), user()
    one = User(mine.public, "shop", (GRANT, "encrypt.acme.mail"), Validity(NOW - 1, NOW + 60))
    token = user_token(key, home.public, one, NOW, APPLICATION_VERBS)
    header, body, _ = token.split(".")
    assert decoded(header) == {"typ": "JWT", "alg": "ed25519-nkey"}
    claims = decoded(body)
    assert claims.pop("jti")
    assert claims == {
        "iat": NOW,
        "iss": key.public,
        "sub": mine.public,
        "name": "shop",
        "nbf": NOW - 1,
        "exp": NOW + 60,
        "nats": {
            "type": "user",
            "version": 2,
            "issuer_account": home.public,
            "tags": ["grant:decrypt.acme.mail", "grant:encrypt.acme.mail"],
        },
    }
    read = verify_user(token, home.public, {key.public}, NOW)
    assert (read.subject, read.name, read.issued, read.expires) == (
        mine.public,
        "shop",
        NOW,
        NOW + 60,
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*",
        ">",
        "a.b",
        "A",
        "shop\n",
        "shöp",
        "a b",
        "a*",
        "{{name()}}",
        "x" * 64,
        "a_b",
        "\uff41",
    ],
)
def test_a_name_that_could_widen_a_subject_is_not_signed(name):
    refused(Code.MALFORMED, sign_user, a_user(name=name))
    refused(Code.MALFORMED, account_token, operator(), account().public, name, {}, NOW)
    refused(Code.MALFORMED, operator_token, operator(), name, [], account().public, NOW)


@pytest.mark.parametrize(
    "grant",
    [
        "",
        "*",
        ">",
        "decrypt",
        "decrypt.acme",
        "decrypt.a*.mail",
        "decrypt.acme.m*",
        "decrypt.**.mail",
        "decrypt.*",
        "*.acme.mail",
        "*.*.*",
        "decrypt.*.>",
        "decrypt.acme.>",
        "decrypt.>",
        "decrypt.acme.mail.",
        ".decrypt.acme.mail",
        "decrypt..mail",
        "decrypt.acme.mail.more",
        "decrypt.Acme.mail",
        "DECRYPT.acme.mail",
        "decrypt.acme.mäil",
        "decrypt.acme.mail\n",
        "decrypt.acme.mail queue",
        "decrypt.acme.ma\til",
        "wrap.acme.mail",
        "key.acme.mail",
        "decrypt.{{subject()}}.mail",
        "decrypt.acme." + "x" * 64,
        "decrypt.\u0430cme.mail",
    ],
)
def test_a_grant_that_is_not_three_plain_names_is_not_signed(grant):
    error = refused(Code.MALFORMED, sign_user, a_user(grants=(GRANT, grant)))
    assert not grant or grant in {"decrypt", "*"} or grant not in error.detail


@pytest.mark.parametrize("grant", ["decrypt.acme.*", "decrypt.*.mail", "encrypt.*.*"])
def test_a_grant_may_be_for_every_tenant_or_service(grant):
    assert sign_user(a_user(grants=(grant,)))


def test_verbs_belong_to_the_role():
    sign_user(a_user(grants=("wrap.acme.mail",)), verbs=EMBEDDED_VERBS)
    refused(Code.MALFORMED, sign_user, a_user(), verbs=EMBEDDED_VERBS)
    refused(Code.MALFORMED, sign_user, a_user(), verbs=frozenset())
    sign_user(a_user(grants=()), verbs=frozenset())


def test_more_grants_than_an_application_has_are_refused():
    many = tuple(f"decrypt.t{n}.s" for n in range(GRANTS_MAX + 1))
    refused(Code.TOO_LARGE, sign_user, a_user(grants=many))
    sign_user(a_user(grants=many[1:]))


def test_a_token_that_the_broker_could_not_take_is_refused():
    long = tuple(f"decrypt.{n:063}.{n:063}" for n in range(GRANTS_MAX))
    refused(Code.TOO_LARGE, sign_user, a_user(grants=long))


@pytest.mark.parametrize(
    "validity", [Validity(-1), Validity(0, -1), Validity(5, 5), Validity(6, 5)]
)
def test_a_validity_without_time_is_refused(validity):
    refused(Code.MALFORMED, sign_user, a_user(validity=validity))


def test_times_rise_strictly_also_while_the_clock_stands():
    clock = StoppedClock()
    first = issued_at(clock)
    assert first == NOW
    assert issued_at(clock, first) == NOW + 1
    assert issued_at(clock, NOW - 9) == NOW
    clock.now -= 100
    assert issued_at(clock, NOW) == NOW + 1
    clock.now -= 1000
    refused(Code.CONFLICT, issued_at, clock, NOW)


def test_each_kind_of_key_signs_its_own_kind_of_token():
    refused(Code.MALFORMED, sign_user, a_user(), key=operator())
    refused(Code.MALFORMED, sign_user, a_user(public=account().public))
    refused(Code.MALFORMED, sign_user, a_user(), home=operator())
    refused(Code.MALFORMED, account_token, account(), account().public, "region", {}, NOW)
    refused(Code.MALFORMED, account_token, operator(), user().public, "region", {}, NOW)
    refused(
        Code.MALFORMED, operator_token, operator(), "eu", [user().public], account().public, NOW
    )
    refused(Code.MALFORMED, operator_token, operator(), "eu", [], operator().public, NOW)
    refused(Code.MALFORMED, operator_token, account(), "eu", [], account().public, NOW)


def test_an_operator_signs_itself_and_names_its_other_keys():
    root, second, system = operator(), operator(), account()
    token = operator_token(root, "eu", [second.public], system.public, NOW)
    claims = verify_operator(token)
    assert claims.subject == root.public
    assert claims.body["signing_keys"] == [second.public]
    assert claims.body["system_account"] == system.public
    other = tokens.sign(
        second, TokenKind.OPERATOR, root.public, {"name": "eu", "iat": 1, "nats": {}}
    )
    refused(Code.FORBIDDEN, verify_operator, other)


def test_an_account_of_a_foreign_operator_is_refused():
    ours, foreign, home = operator(), operator(), account()
    good = account_token(ours, home.public, "region", {"limits": {}}, NOW)
    assert verify_account(good, {ours.public}).subject == home.public
    bad = account_token(foreign, home.public, "region", {"limits": {}}, NOW)
    refused(Code.FORBIDDEN, verify_account, bad, {ours.public})


def test_a_user_of_another_key_account_or_time_is_refused():
    key, home = account(), account()
    token = sign_user(a_user(validity=Validity(NOW, NOW + 10)), key, home)
    verify_user(token, home.public, {key.public}, NOW)
    refused(Code.FORBIDDEN, verify_user, token, home.public, {account().public}, NOW)
    refused(Code.FORBIDDEN, verify_user, token, account().public, {key.public}, NOW)
    refused(Code.FORBIDDEN, verify_user, token, home.public, {key.public}, NOW - 1)
    refused(Code.FORBIDDEN, verify_user, token, home.public, {key.public}, NOW + 10)
    own = {"issuer_account": home.public, "pub": {"allow": [">"]}}
    claims = {"name": "shop", "iat": NOW, "nats": own}
    wide = tokens.sign(key, TokenKind.USER, user().public, claims)
    refused(Code.FORBIDDEN, verify_user, wide, home.public, {key.public}, NOW)


def altered():
    key, home = operator(), account()
    token = account_token(key, home.public, "region", {"limits": {}}, NOW)
    header, body, signature = token.split(".")
    claims = decoded(body)

    def with_(**changes):
        kept = {name: value for name, value in (claims | changes).items() if value is not None}
        return f"{header}.{encoded(kept)}.{signature}"

    return key, {
        "a changed name": (with_(name="other"), Code.FORBIDDEN),
        "no name": (with_(name=None), Code.MALFORMED),
        "no iat": (with_(iat=None), Code.MALFORMED),
        "text as time": (with_(iat="1"), Code.MALFORMED),
        "a truth as time": (with_(exp=True), Code.MALFORMED),
        "before 1970": (with_(iat=-1), Code.MALFORMED),
        "a user's key": (with_(sub=user().public), Code.MALFORMED),
        "no nats": (with_(nats=None), Code.MALFORMED),
        "another kind": (with_(nats={"type": "user", "version": 2}), Code.MALFORMED),
        "version 1": (with_(nats={"type": "account", "version": 1}), Code.MALFORMED),
        "no signature": (f"{header}.{body}.", Code.FORBIDDEN),
        "two parts": (f"{header}.{body}", Code.MALFORMED),
        "four parts": (f"{token}.x", Code.MALFORMED),
        "padding": (f"{token}==", Code.MALFORMED),
        "algorithm none": (
            f"{encoded({'typ': 'JWT', 'alg': 'none'})}.{body}.{signature}",
            Code.MALFORMED,
        ),
        "a longer header": (
            f"{encoded({'typ': 'JWT', 'alg': 'ed25519-nkey', 'x': 1})}.{body}.{signature}",
            Code.MALFORMED,
        ),
        "a list": (f"{header}.{encoded([])}.{signature}", Code.MALFORMED),
        "deep": (f"{header}.{encoded(b'[' * 100_000)}.{signature}", Code.MALFORMED),
        "no base64": (f"{header}.!!!.{signature}", Code.MALFORMED),
        "not ASCII": (f"{header}.é.{signature}", Code.MALFORMED),
        "empty": ("", Code.MALFORMED),
        "huge": (f"{header}.{'A' * (1 << 20)}.{signature}", Code.MALFORMED),
        "a line feed": (f"{token}\n", Code.MALFORMED),
    }


KEY, ALTERED = altered()


@pytest.mark.parametrize("case", ALTERED)
def test_an_altered_token_is_refused(case):
    token, code = ALTERED[case]
    refused(code, verify_account, token, {KEY.public})


def test_a_token_has_one_text():
    key = operator()
    token = account_token(key, account().public, "region", {}, NOW)
    head, last = token[:-1], token[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for other in alphabet.replace(last, ""):
        with pytest.raises(KcmError):
            verify_account(head + other, {key.public})


def test_a_token_is_the_one_of_a_known_key():
    key = SigningKey.from_seed("SOAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H2AJA")
    home = "AAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3QPZV"
    first = account_token(key, home, "region", {"limits": {}}, NOW)
    assert first == account_token(key, home, "region", {"limits": {}}, NOW)
    assert first != account_token(key, home, "region", {"limits": {}}, NOW + 1)
