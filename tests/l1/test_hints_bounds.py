"""Whoever reaches the listener for pushes keeps no thread for long, and makes it fetch nothing."""

import contextlib
import socket
import threading
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, exceptions, jwt
from kcm_core.root_keys.hints import gcp_push
from kcm_core.root_keys.hints.bounded_server import CONNECTIONS_MAX
from kcm_core.root_keys.hints.google_certificates import (
    AGAIN_S,
    CERTIFICATES_MAX,
    KEEP_S,
    SKEW_S,
    TOKEN_MAX,
    Google,
)

ENOUGH_S = 20.0


@pytest.fixture(scope="module")
def key():
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


class Published:
    """Google's certificates, and how often somebody fetched them."""

    def __init__(self, key):
        self.now, self.fetched, self.found = 0.0, 0, {"k1": key[1]}
        self.google = Google("push@x", lambda: self.now, self.fetch)

    def fetch(self):
        self.fetched += 1
        return self.found


@pytest.fixture
def published(key):
    return Published(key)


@pytest.fixture
def token(key):
    def make(key_id="k1", **claims):
        now = int(time.time())
        said = {
            "iss": "https://accounts.google.com", "aud": "aud", "email": "push@x",
            "email_verified": True, "iat": now, "exp": now + 600, **claims,
        }  # fmt: skip
        signer = crypt.RSASigner.from_string(key[0], key_id)
        return jwt.encode(signer, said).decode()

    return make


def test_certificates_are_fetched_once_while_they_are_fresh(published, token):
    for _ in range(5):
        assert published.google(token(), "aud")["email"] == "push@x"
    assert published.fetched == 1
    published.now = KEEP_S
    published.google(token(), "aud")
    assert published.fetched == 2


@pytest.mark.parametrize(
    "claims", [{"aud": "other"}, {"email": "stranger@x"}, {"iss": "https://evil.example"}]
)
def test_nothing_is_fetched_for_a_token_that_is_for_somebody_else(published, token, claims):
    with pytest.raises(ValueError, match="audience and account"):
        published.google(token(**claims), "aud")
    assert published.fetched == 0


@pytest.mark.parametrize("ahead_s", [SKEW_S // 2, -SKEW_S // 2])
def test_a_clock_that_is_some_seconds_off_hears_hints(published, token, ahead_s):
    now = int(time.time()) - ahead_s
    claims = {"iat": now, "exp": now + 600} if ahead_s < 0 else {"iat": now - 600, "exp": now}
    assert published.google(token(**claims), "aud")["email"] == "push@x"


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "x" * (TOKEN_MAX + 1)])
def test_nothing_is_fetched_for_what_is_no_token(published, text):
    with pytest.raises((ValueError, exceptions.GoogleAuthError)):
        published.google(text, "aud")
    assert published.fetched == 0


def test_unknown_keys_make_it_fetch_once_a_minute(published, token):
    for number in range(5):
        with pytest.raises((ValueError, exceptions.GoogleAuthError)):
            published.google(token(f"unknown{number}"), "aud")
    assert published.fetched == 1
    published.found["k2"] = published.found["k1"]
    published.now = AGAIN_S
    assert published.google(token("k2"), "aud")
    assert published.fetched == 2


def test_a_forged_or_expired_token_is_refused_with_kept_certificates(published, token):
    good = token()
    published.google(good, "aud")
    head, said, signature = good.split(".")
    with pytest.raises((ValueError, exceptions.GoogleAuthError)):
        published.google(f"{head}.{said}.{signature[::-1]}", "aud")
    with pytest.raises((ValueError, exceptions.GoogleAuthError)):
        published.google(token(iat=1, exp=2), "aud")


def test_what_is_too_old_or_too_many_is_not_used(published, token):
    published.google(token(), "aud")
    published.now = KEEP_S
    published.found = {str(number): "x" for number in range(CERTIFICATES_MAX + 1)}
    with pytest.raises(ValueError, match="too many"):
        published.google(token(), "aud")
    with pytest.raises(ValueError, match="too old"):
        published.google(token(), "aud")


@contextlib.contextmanager
def admission(connection_s=ENOUGH_S):
    server = gcp_push.server(("127.0.0.1", 0), "aud", "push@x", lambda *_: {}, connection_s)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield lambda: socket.create_connection(server.server_address, ENOUGH_S)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_connection_too_many_is_answered_with_503_and_a_place_is_free_again():
    with admission() as connect, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(connect()) for _ in range(CONNECTIONS_MAX)]
        with connect() as one:
            assert one.recv(64).startswith(b"HTTP/1.0 503 ")
        kept[0].sendall(b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
        answer = b""
        while part := kept[0].recv(1024):
            answer += part
        assert b" 403 " in answer
        with connect() as one:
            one.sendall(b"POST / HTTP/1.0\r\nContent-Length: x\r\n\r\n")
            assert b" 413 " in one.recv(64)


def test_who_sends_slowly_is_cut():
    with admission(connection_s=0.0) as connect, connect() as slow:
        slow.sendall(b"POST / HTTP/1.0\r\n")
        assert slow.recv(64) == b""
