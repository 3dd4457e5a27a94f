"""Public keys and seeds of the broker's users; the vectors are of nkeys 0.2.1 from PyPI."""

import base64
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm_runtime.nats.nkeys import (
    KeyKind,
    SigningKey,
    check_signature,
    decode_public,
    encode_public,
    kind_of_public,
)
from kcm_schemas.codes import Code, KcmError

RAW = bytes(range(32))
SIGNED = base64.b64decode(
    "+HTq4d6DDHVNb8MsTRAZtSIa0vXA/yuZblwTA7JT5wYzmKBxJ2wpYfjHh7hcptZlidbVw/6ZLyubjm/yDk+OCQ=="
)
VECTORS = (
    (
        KeyKind.OPERATOR,
        "SOAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H2AJA",
        "OAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3QZVT",
    ),
    (
        KeyKind.ACCOUNT,
        "SAAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4HYMHI",
        "AAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3QPZV",
    ),
    (
        KeyKind.USER,
        "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y",
        "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK",
    ),
)
SEED, PUBLIC = VECTORS[2][1:]


@pytest.mark.parametrize(("kind", "seed", "public"), VECTORS)
def test_keys_have_the_texts_of_the_reference(kind, seed, public):
    key = SigningKey(kind, Ed25519PrivateKey.from_private_bytes(RAW))
    assert (key.seed(), key.public) == (seed, public)
    again = SigningKey.from_seed(seed)
    assert (again.kind, again.public, again.sign(b"nonce")) == (kind, public, SIGNED)
    assert encode_public(kind, decode_public(public, kind)) == public
    assert kind_of_public(public) is kind
    assert public[0] == kind.letter
    check_signature(public, b"nonce", SIGNED)


def swapped(text, place):
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


@pytest.mark.parametrize(
    "text",
    [
        "",
        SEED[:-1],
        SEED + "A",
        SEED.lower(),
        swapped(SEED, 10),
        swapped(SEED, 57),
        swapped(SEED, 0),
        "SU" + "A" * 56,
        "é" * 58,
        PUBLIC,
        PUBLIC + "==",
        SEED[:-2] + "==",
        "=" * 58,
    ],
)
def test_a_bad_seed_is_refused_and_is_not_in_the_error(text):
    with pytest.raises(KcmError) as caught:
        SigningKey.from_seed(text)
    assert caught.value.code is Code.MALFORMED
    assert not text or text not in str(caught.value)
    assert caught.value.__cause__ is None


def test_every_changed_character_of_a_seed_or_key_is_refused():
    for place in range(len(SEED)):
        with pytest.raises(KcmError):
            SigningKey.from_seed(swapped(SEED, place))
    for place in range(len(PUBLIC)):
        with pytest.raises(KcmError):
            decode_public(swapped(PUBLIC, place), KeyKind.USER)


@pytest.mark.parametrize(
    "text", ["", "U", PUBLIC[:-1], PUBLIC + "A", PUBLIC.lower(), SEED, "U" + "A" * 55, "=" * 56]
)
def test_a_bad_public_key_is_refused(text):
    with pytest.raises(KcmError) as caught:
        decode_public(text, KeyKind.USER)
    assert caught.value.code is Code.MALFORMED


def test_a_key_of_another_kind_is_refused():
    with pytest.raises(KcmError, match="account"):
        decode_public(PUBLIC, KeyKind.ACCOUNT)


def test_the_last_bits_of_a_seed_have_one_form():
    # 58 characters carry two bits more than a seed has.
    with pytest.raises(KcmError):
        SigningKey.from_seed(SEED[:-1] + "Z")


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_public_key_of_another_size_is_refused(size):
    with pytest.raises(KcmError):
        encode_public(KeyKind.USER, bytes(size))


@pytest.mark.parametrize("signature", [b"", bytes(64), SIGNED[:-1], SIGNED[:-1] + b"x"])
def test_a_wrong_signature_is_refused(signature):
    with pytest.raises(KcmError) as caught:
        check_signature(PUBLIC, b"nonce", signature)
    assert caught.value.code is Code.FORBIDDEN


def test_a_seed_shows_nowhere():
    key = SigningKey.from_seed(SEED)
    assert SEED not in repr(key) + str(key)
    assert repr(key) == f"<SigningKey {PUBLIC}>"
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_generated_keys_differ():
    assert SigningKey.generate(KeyKind.USER).public != SigningKey.generate(KeyKind.USER).public
