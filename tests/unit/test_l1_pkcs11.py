"""The decisions around a token, with a key that answers as told; a real token is tried in
``tests/integration/test_unsealer_softhsm.py``."""

import os

import pkcs11
import pytest
from kcm_core.providers.catalog import open_provider
from kcm_core.providers.pkcs11.errors import translated
from kcm_core.providers.pkcs11.mechanisms import PAIR, SECRET, Wrapping, unwrap, wrap_first
from kcm_core.providers.pkcs11.provider import Pkcs11Provider, _read_pin, may_be_tried
from kcm_core.providers.remediation import fix
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import Pkcs11Uri, parse
from pkcs11 import TokenFlag
from pkcs11.mechanisms import Mechanism

TOO_SMALL = "Buffer was too small. Should never see this."
BLOB = bytes(72)


class FakeKey:
    """Answers each call with what a test put there: an exception or a result."""

    def __init__(self, encrypt=(), decrypt=()):
        self._encrypt, self._decrypt = list(encrypt), list(decrypt)
        self.tried = []

    def encrypt(self, data, *, mechanism, mechanism_param):
        self.tried.append((mechanism, mechanism_param))
        return self._next(self._encrypt)

    def decrypt(self, data, *, mechanism, mechanism_param):
        self.tried.append((mechanism, mechanism_param))
        return self._next(self._decrypt)

    @staticmethod
    def _next(script):
        result = script.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (pkcs11.PinIncorrect(), L1State.FORBIDDEN),
        (pkcs11.PinLocked(), L1State.FORBIDDEN),
        (pkcs11.FunctionRejected(), L1State.FORBIDDEN),
        (pkcs11.PKCS11Error("Unmapped error code 0x68"), L1State.DISABLED),
        (pkcs11.NoSuchKey(), L1State.DELETED),
        (pkcs11.EncryptedDataInvalid(), L1State.INVALID),
        (pkcs11.EncryptedDataLenRange(), L1State.INVALID),
        (pkcs11.PinExpired(), L1State.UNREACHABLE),
        (pkcs11.UserNotLoggedIn(), L1State.UNREACHABLE),
        (pkcs11.ObjectHandleInvalid(), L1State.UNREACHABLE),
        (pkcs11.KeyHandleInvalid(), L1State.UNREACHABLE),
        (pkcs11.GeneralError(), L1State.UNREACHABLE),
        (pkcs11.DeviceError(), L1State.UNREACHABLE),
        (pkcs11.DeviceRemoved(), L1State.UNREACHABLE),
        (pkcs11.NoSuchToken(), L1State.UNREACHABLE),
        (pkcs11.TokenNotPresent(), L1State.UNREACHABLE),
        (pkcs11.SessionHandleInvalid(), L1State.UNREACHABLE),
        (pkcs11.FunctionFailed(), L1State.UNREACHABLE),
        (pkcs11.MultipleObjectsReturned(), L1State.UNREACHABLE),
        (pkcs11.PKCS11Error("Unmapped error code 0x80000001"), L1State.UNREACHABLE),
        (pkcs11.PKCS11Error("Unmapped error code 0x680"), L1State.UNREACHABLE),
    ],
)
def test_each_return_code_means_one_state(error, state):
    with pytest.raises(L1Error) as caught, translated():
        raise error
    assert caught.value.state is state
    assert caught.value.cls in {type(error).__name__, ""}


def test_no_return_code_but_those_is_a_refusal():
    refused = {
        error.__name__
        for error in vars(pkcs11.exceptions).values()
        if isinstance(error, type) and issubclass(error, pkcs11.PKCS11Error)
        if _state(error()).refused
    }
    assert refused == {
        "FunctionRejected", "NoSuchKey", "PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked",
    }  # fmt: skip


def _state(error):
    with pytest.raises(L1Error) as caught, translated():
        raise error
    return caught.value.state


@pytest.mark.parametrize(
    ("flag", "state"),
    [
        (TokenFlag.USER_PIN_LOCKED, L1State.FORBIDDEN),
        (TokenFlag.USER_PIN_FINAL_TRY, L1State.UNREACHABLE),
        (TokenFlag.USER_PIN_LOCKED | TokenFlag.USER_PIN_FINAL_TRY, L1State.FORBIDDEN),
    ],
)
def test_the_last_try_is_left_to_a_human_and_only_a_locked_pin_is_a_refusal(flag, state):
    with pytest.raises(L1Error) as caught:
        may_be_tried(flag | TokenFlag.LOGIN_REQUIRED)
    assert caught.value.state is state
    may_be_tried(TokenFlag.LOGIN_REQUIRED | TokenFlag.USER_PIN_COUNT_LOW)


def test_the_librarys_text_is_dropped():
    with pytest.raises(L1Error) as caught, translated():
        raise pkcs11.NoSuchKey("No key matching {label: 'payroll of ACME'}")
    assert "ACME" not in str(caught.value)


def test_our_own_errors_pass():
    with pytest.raises(L1Error) as caught, translated():
        raise L1Error(L1State.DISABLED, "said so")
    assert caught.value.detail == "said so"


def test_gcm_is_preferred_with_a_fresh_nonce_and_the_context_as_aad():
    key = FakeKey(encrypt=[b"sealed", b"sealed"])
    first = wrap_first(key, SECRET, BLOB, b"context")
    second = wrap_first(key, SECRET, BLOB, b"context")
    assert first[0] is second[0] is Wrapping.AES_GCM
    assert first[1] != second[1]
    assert first[1][12:] == b"sealed"
    for (mechanism, parameter), (_, blob) in zip(key.tried, (first, second), strict=True):
        assert mechanism is Mechanism.AES_GCM
        assert (parameter.nonce, parameter.aad, parameter.tag_bits) == (blob[:12], b"context", 128)


@pytest.mark.parametrize(
    "error",
    [
        pkcs11.ArgumentsBad(),
        pkcs11.MechanismInvalid(),
        pkcs11.MechanismParamInvalid(),
        pkcs11.FunctionNotSupported(),
        pkcs11.PKCS11Error(TOO_SMALL),
    ],
)
def test_a_mechanism_that_is_not_offered_is_followed_by_the_next(error):
    key = FakeKey(encrypt=[error, b"wrapped"])
    assert wrap_first(key, SECRET, BLOB, b"c") == (Wrapping.AES_KEY_WRAP, b"wrapped")
    assert key.tried[1] == (Mechanism.AES_KEY_WRAP, None)


@pytest.mark.parametrize(
    "error",
    [pkcs11.GeneralError(), pkcs11.DeviceError(), pkcs11.PKCS11Error("Unmapped error code 0x68")],
)
def test_a_fault_or_a_refusal_never_falls_back(error):
    key = FakeKey(encrypt=[error, b"wrapped by something weaker"])
    with pytest.raises(type(error)):
        wrap_first(key, SECRET, BLOB, b"c")
    assert len(key.tried) == 1


def test_oaep_tries_sha256_before_sha1_and_passes_the_hash_for_both_uses():
    key = FakeKey(encrypt=[pkcs11.ArgumentsBad(), b"wrapped"])
    assert wrap_first(key, PAIR, BLOB, b"c") == (Wrapping.RSA_OAEP_SHA1, b"wrapped")
    hashes = [parameter[0] for _, parameter in key.tried]
    assert hashes == [Mechanism.SHA256, Mechanism.SHA_1]
    assert [parameter[1].name for _, parameter in key.tried] == ["SHA256", "SHA1"]


def test_a_token_that_offers_nothing_is_unreachable():
    with pytest.raises(L1Error) as caught:
        wrap_first(FakeKey(encrypt=[pkcs11.MechanismInvalid()] * 2), SECRET, BLOB, b"c")
    assert caught.value.state is L1State.UNREACHABLE


def test_a_general_error_of_a_sound_device_means_that_the_blob_is_wrong():
    key = FakeKey(encrypt=[b"fresh"], decrypt=[pkcs11.GeneralError(), bytes(32)])
    with pytest.raises(L1Error) as caught:
        unwrap(key, Wrapping.AES_GCM, bytes(100), b"c")
    assert caught.value.state is L1State.INVALID


@pytest.mark.parametrize(
    "key",
    [
        FakeKey(encrypt=[pkcs11.GeneralError()], decrypt=[pkcs11.GeneralError()]),
        FakeKey(encrypt=[b"fresh"], decrypt=[pkcs11.GeneralError(), pkcs11.GeneralError()]),
        FakeKey(encrypt=[b"fresh"], decrypt=[pkcs11.GeneralError(), b"something else"]),
    ],
)
def test_a_general_error_of_a_broken_device_stays_one(key):
    with pytest.raises(L1Error) as caught, translated():
        unwrap(key, Wrapping.AES_GCM, bytes(100), b"c")
    assert (caught.value.state, caught.value.cls) == (L1State.UNREACHABLE, "GeneralError")


def opening(module):
    provider = Pkcs11Provider(Pkcs11Uri(module_path=str(module), token="t", object="k"))
    with pytest.raises(L1Error) as caught:
        provider.unwrap(b"blob", b"context", "aes-gcm")
    return caught.value


def test_a_module_that_others_may_write_is_not_loaded(tmp_path):
    module = tmp_path / "evil.so"
    module.write_bytes(b"\x7fELF")
    module.chmod(0o666)
    error = opening(module)
    assert error.state is L1State.UNREACHABLE
    assert "others may write" in error.detail


def test_a_module_that_its_group_may_write_is_not_loaded(tmp_path):
    module = tmp_path / "evil.so"
    module.write_bytes(b"\x7fELF")
    module.chmod(0o664)
    assert "group" in opening(module).detail


@pytest.mark.parametrize("around", [b"%s", b"%s\n", b"%s\r\n", b"\xef\xbb\xbf%s\r\n"])
def test_a_pin_file_of_any_editor_gives_the_pin(tmp_path, around):
    (tmp_path / "pin").write_bytes(around % b"47 11")
    assert _read_pin(str(tmp_path / "pin")) == "47 11"


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"\xef\xbb\xbf"])
def test_an_empty_pin_file_is_refused_before_the_token_is_asked(tmp_path, content):
    (tmp_path / "pin").write_bytes(content)
    with pytest.raises(L1Error) as caught:
        _read_pin(str(tmp_path / "pin"))
    assert caught.value.state is L1State.UNREACHABLE
    assert "empty" in caught.value.detail


def test_a_module_below_a_directory_that_others_may_write_is_not_loaded(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    module = tmp_path / "open" / "evil.so"
    module.write_bytes(b"\x7fELF")
    module.chmod(0o600)
    link = tmp_path / "innocent.so"
    link.symlink_to(module)
    assert "others may write" in opening(link).detail


def test_a_module_behind_a_link_that_others_could_replace_is_not_loaded(tmp_path):
    """The link is followed to a good module, today: its directory is open to the group."""
    module = tmp_path / "good.so"
    module.write_text("no module")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "current").symlink_to("../good.so")
    (tmp_path / "vendor.so").symlink_to("local/current")
    assert opening(tmp_path / "vendor.so").cls == "PKCS11Error"
    (tmp_path / "local").chmod(0o2775)  # as Debian's /usr/local is for its group staff
    assert "its group" in opening(tmp_path / "vendor.so").detail


def test_links_that_lead_nowhere_are_no_module(tmp_path):
    (tmp_path / "one.so").symlink_to("two.so")
    (tmp_path / "two.so").symlink_to("one.so")
    assert opening(tmp_path / "one.so").cls == "OSError"
    (tmp_path / "gone.so").symlink_to("/nowhere/hsm.so")
    assert opening(tmp_path / "gone.so").cls == "FileNotFoundError"


def test_a_module_of_another_user_is_not_loaded(tmp_path, monkeypatch):
    module = tmp_path / "good.so"
    module.write_text("no module")
    if os.geteuid() == 0:
        os.chown(module, 4242, -1)
    owner = module.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert "neither to root nor to this user" in opening(module).detail


@pytest.mark.parametrize(
    ("allowed", "loads"),
    [
        ("", False),
        (":", False),
        ("good.so", False),
        ("{0}", False),
        ("{0}/other.so", False),
        ("{0}/good.so", True),
        ("/x.so:{0}/link.so", True),
    ],
)
@pytest.mark.parametrize("named", ["good.so", "link.so"])
def test_only_modules_on_the_list_are_loaded(tmp_path, monkeypatch, allowed, loads, named):
    (tmp_path / "good.so").write_text("no module")
    (tmp_path / "link.so").symlink_to("good.so")
    monkeypatch.setenv("KCM_L1_MODULES", allowed.format(tmp_path))
    monkeypatch.chdir(tmp_path)
    uri = parse(f"pkcs11:token=t;object=k?module-path={tmp_path / named}")
    if loads:
        assert isinstance(open_provider(uri, development=False), Pkcs11Provider)
        return
    with pytest.raises(L1Error, match="KCM_L1_MODULES") as caught:
        open_provider(uri, development=True)
    assert caught.value.state is L1State.UNREACHABLE
    assert "the Core's operator adds" in fix(uri, caught.value)


def test_a_module_that_is_missing_or_no_module_is_unreachable(tmp_path):
    assert opening(tmp_path / "nowhere.so").cls == "FileNotFoundError"
    module = tmp_path / "text.so"
    module.write_text("no module")
    error = opening(module)
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "PKCS11Error")
    assert "cannot be loaded" in error.detail
    uri = parse("pkcs11:token=t;object=k?module-path=/x.so")
    assert "name it with module-path" in fix(uri, error)
    assert str(tmp_path) not in str(error)


def test_an_unknown_mechanism_is_not_tried():
    with pytest.raises(L1Error) as caught:
        Pkcs11Provider(Pkcs11Uri("/x")).unwrap(b"blob", b"context", "rot13")
    assert caught.value.state is L1State.UNREACHABLE
