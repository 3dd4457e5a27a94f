"""How a client logs in: its inboxes, its credentials, and TLS."""

import ssl
from pathlib import Path

import pytest
from kcm_broker.certificates import Authority
from kcm_broker.claims import User, user_token
from kcm_runtime.clock import SystemClock
from kcm_runtime.config import BusAddress
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.login import Login
from pydantic import ValidationError

from tests.unit.broker_rig import NOW, account, user

URL = "tls://127.0.0.1:4222"


def written(path: Path) -> str:
    """Write credentials and return the public key in them."""
    key, signer = user(), account()
    token = user_token(signer, signer.public, User(key.public, "shop"), NOW)
    credentials.write(path, Credentials(token, key))
    return key.public


def address(path: Path, inbox: str = "", **more: object) -> BusAddress:
    return BusAddress.model_validate({"url": URL, "credentials": path, "inbox": inbox} | more)


@pytest.mark.parametrize("role", ["application", "operator", "plain", "provisioner"])
def test_the_inboxes_of_a_role_are_completed_by_the_own_key(tmp_path, role):
    path = tmp_path / "shop.creds"
    public = written(path)
    login = Login(address(path, f"_INBOX.{role}"))
    assert login.options()["inbox_prefix"] == f"_INBOX.{role}.{public}"
    public = written(path)
    assert login.options()["inbox_prefix"] == f"_INBOX.{role}.{public}"


def test_other_inboxes_stay_as_they_are(tmp_path):
    path, password = tmp_path / "core.creds", tmp_path / "password"
    written(path)
    prefix = Login(address(path, "_INBOX.core.core-1")).options()["inbox_prefix"]
    assert prefix == "_INBOX.core.core-1"
    assert "inbox_prefix" not in Login(address(path)).options()
    password.write_text("x")
    password.chmod(0o600)
    old = BusAddress(url=URL, user="u", password_file=password, inbox="_INBOX.core")
    assert Login(old).options() == {"user": "u", "password": "x", "inbox_prefix": "_INBOX.core"}


@pytest.mark.parametrize(
    "inbox",
    ["_INBOX", "_INBOX.", "_INBOX.>", "_INBOX.*.x", "_INBOX.a.b.c", "INBOX.a", "_INBOX.a\n"],
)
def test_an_inbox_that_would_reach_further_is_refused(tmp_path, inbox):
    if inbox == "_INBOX":
        inbox = "_INBOX.a b"
    with pytest.raises(ValidationError):
        address(tmp_path / "x", inbox)


def test_credentials_that_cannot_be_used_are_named_before_anything_connects(tmp_path):
    path = tmp_path / "shop.creds"
    for inbox in ("", "_INBOX.operator"):
        login = Login(address(path, inbox))
        with pytest.raises(SecretFileError, match=r"shop\.creds"):
            login.check()
        path.write_text("nothing")
        path.chmod(0o600)
        with pytest.raises(SecretFileError, match=r"shop\.creds"):
            login.check()
        written(path)
        login.check()
        path.chmod(0o604)
        with pytest.raises(SecretFileError, match="chmod 600"):
            login.check()
        path.unlink()


def test_one_login_is_chosen(tmp_path):
    for wrong in (
        {},
        {"user": "u"},
        {"password_file": "p"},
        {"user": "u", "password_file": "p", "credentials": "c"},
    ):
        with pytest.raises(ValidationError, match="give credentials, or user and password_file"):
            BusAddress.model_validate({"url": URL} | wrong)


def test_tls_begins_with_the_first_byte_and_believes_the_own_authority_only(tmp_path):
    path, ca = tmp_path / "shop.creds", tmp_path / "ca.pem"
    written(path)
    ca.write_bytes(Authority.create("eu-ca", 30, SystemClock()).certificate)
    options = Login(address(path, ca=ca)).options()
    context = options["tls"]
    assert options["tls_handshake_first"] is True
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    (only,) = context.get_ca_certs()
    assert only["subject"] == ((("commonName", "eu-ca"),),)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_authority_that_cannot_be_read_is_named(tmp_path, content):
    path, ca = tmp_path / "shop.creds", tmp_path / "ca.pem"
    written(path)
    if content is not None:
        ca.write_bytes(content)
    with pytest.raises(SecretFileError, match=r"ca\.pem"):
        Login(address(path, ca=ca)).check()
