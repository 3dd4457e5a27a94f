"""Whatever text arrives, reading keys, tokens and credentials ends with our error or a value."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st
from kcm_broker import tokens
from kcm_broker.claims import account_token, check_grant
from kcm_broker.tokens import TokenKind
from kcm_runtime.nats import credentials
from kcm_runtime.nats.nkeys import KeyKind, SigningKey, decode_public, encode_public
from kcm_schemas.codes import KcmError

from tests.unit.broker_rig import NOW, account, operator

KEY, HOME = operator(), account().public
TOKEN = account_token(KEY, HOME, "region", {"limits": {}}, NOW)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    for read in (
        SigningKey.from_seed,
        credentials.from_text,
        lambda one: decode_public(one, KeyKind.USER),
        lambda one: tokens.verify(one, TokenKind.ACCOUNT, {KEY.public}),
        lambda one: check_grant(one, {"encrypt"}),
    ):
        with contextlib.suppress(KcmError):
            read(text)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "sub", "name", "iat", "exp", "nbf", "nats", "jti"]), JSON
    )
)
def test_signed_claims_of_any_form_are_read_or_refused(claims):
    """By the right key: only the form can be wrong."""
    body = {"iss": KEY.public, "sub": HOME} | claims
    header = TOKEN.partition(".")[0]
    signed = f"{header}.{tokens._base64(json.dumps(body).encode())}"  # noqa: SLF001
    token = f"{signed}.{tokens._base64(KEY.sign(signed.encode()))}"  # noqa: SLF001
    with contextlib.suppress(KcmError):
        found = tokens.verify(token, TokenKind.ACCOUNT, {KEY.public})
        assert found.issued > 0
        assert found.subject == HOME


@given(st.integers(0, len(TOKEN) - 1), st.characters(max_codepoint=127))
def test_no_changed_character_is_accepted(place, other):
    changed = TOKEN[:place] + other + TOKEN[place + 1 :]
    if changed == TOKEN:
        return
    with contextlib.suppress(KcmError):
        tokens.verify(changed, TokenKind.ACCOUNT, {KEY.public})
        raise AssertionError(changed)


@given(st.sampled_from(KeyKind), st.binary(min_size=32, max_size=32))
def test_every_public_key_has_one_text(kind, raw):
    text = encode_public(kind, raw)
    assert len(text) == 56
    assert text[0] == kind.letter
    assert decode_public(text, kind) == raw
