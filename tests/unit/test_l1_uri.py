from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_core.providers.pkcs11.uri import KeyClass
from kcm_core.providers.uri import (
    URI_MAX,
    L1UriError,
    Pkcs11Uri,
    SoftkeyUri,
    UriReason,
    parse,
    scheme,
)

SCHEMES = ("awskms", "azurekv", "gcpkms", "pkcs11", "softkey")
MODULE = "module-path=/usr/lib/hsm.so"


def test_every_attribute_is_understood():
    assert parse(
        "pkcs11:token=My%20Token%3b;serial=00ff;slot-id=17;object=cl%C3%A9"
        f";id=%00%ff;type=secret-key?{MODULE}&pin-source=file:/run/credentials/pin"
    ) == Pkcs11Uri(
        module_path="/usr/lib/hsm.so",
        token="My Token;",
        serial="00ff",
        slot_id=17,
        object="clé",
        id=b"\x00\xff",
        type=KeyClass.SECRET,
        pin_source="/run/credentials/pin",
    )


def test_what_is_not_given_is_none():
    uri = parse(f"pkcs11:serial=1;id=%01?{MODULE}")
    assert uri == Pkcs11Uri(module_path="/usr/lib/hsm.so", serial="1", id=b"\x01")


def test_a_softkey_names_a_directory():
    assert parse("softkey:/var/lib/kcm/dev-key") == SoftkeyUri("/var/lib/kcm/dev-key")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", UriReason.UNKNOWN_SCHEME),
        ("softkey", UriReason.UNKNOWN_SCHEME),
        ("PKCS11:token=a;object=b", UriReason.UNKNOWN_SCHEME),
        ("file:/etc/passwd", UriReason.UNKNOWN_SCHEME),
        ("pkcs11:" + "a" * URI_MAX, UriReason.TOO_LONG),
        ("pkcs11:", UriReason.MISSING_TOKEN),
        (f"pkcs11:?{MODULE}", UriReason.MISSING_TOKEN),
        (f"pkcs11:object=k?{MODULE}", UriReason.MISSING_TOKEN),
        (f"pkcs11:token=t?{MODULE}", UriReason.MISSING_KEY),
        ("pkcs11:token=t;object=k", UriReason.MISSING_MODULE),
        (f"pkcs11:token=t;object=k?{MODULE}&pin-value=1234", UriReason.PIN_VALUE),
        (f"pkcs11:token=t;pin-value=1234;object=k?{MODULE}", UriReason.PIN_VALUE),
        (f"pkcs11:token=t;object=k?{MODULE}&pin-source=|cat", UriReason.BAD_PATH),
        (f"pkcs11:token=t;object=k?{MODULE}&pin-source=/run/pin", UriReason.BAD_PATH),
        (f"pkcs11:token=t;object=k?{MODULE}&pin-source=file:pin", UriReason.BAD_PATH),
        (f"pkcs11:token=t;object=k?{MODULE}&pin-source=file:////run/pin", UriReason.BAD_PATH),
        (f"pkcs11:token=t;object=k?{MODULE}&pin-source=file://host/pin", UriReason.BAD_PATH),
        ("pkcs11:token=t;object=k?module-path=hsm.so", UriReason.BAD_PATH),
        ("pkcs11:token=t;object=k?module-path=/tmp/../hsm.so", UriReason.BAD_PATH),
        ("pkcs11:token=t;object=k?module-path=/a%00b", UriReason.BAD_VALUE),
        (f"pkcs11:token=t;token=u;object=k?{MODULE}", UriReason.DUPLICATE_ATTRIBUTE),
        (f"pkcs11:token=t;object=k;vendor=m?{MODULE}", UriReason.UNKNOWN_ATTRIBUTE),
        (f"pkcs11:serial=;object=k?{MODULE}", UriReason.MISSING_TOKEN),
        (f"pkcs11:model=m;manufacturer=;object=k?{MODULE}", UriReason.MISSING_TOKEN),
        (f"pkcs11:token=t;object=k;{MODULE}", UriReason.BAD_SYNTAX),
        (f"pkcs11:token=t;object=k;x?{MODULE}", UriReason.BAD_SYNTAX),
        (f"pkcs11:token=t;;object=k?{MODULE}", UriReason.BAD_SYNTAX),
        (f"pkcs11:token=%zz;object=k?{MODULE}", UriReason.BAD_SYNTAX),
        (f"pkcs11:token=a b;object=k?{MODULE}", UriReason.BAD_SYNTAX),
        (f"pkcs11:token=é;object=k?{MODULE}", UriReason.BAD_SYNTAX),
        (f"pkcs11:token=;object=k?{MODULE}", UriReason.BAD_VALUE),
        (f"pkcs11:token=%ff;object=k?{MODULE}", UriReason.BAD_VALUE),
        (f"pkcs11:token=%0a;object=k?{MODULE}", UriReason.BAD_VALUE),
        (f"pkcs11:token={'t' * 256};object=k?{MODULE}", UriReason.BAD_VALUE),
        (f"pkcs11:slot-id=-1;object=k?{MODULE}", UriReason.BAD_VALUE),
        (f"pkcs11:token=t;object=k;type=public?{MODULE}", UriReason.BAD_VALUE),
        ("softkey:", UriReason.BAD_PATH),
        ("softkey:relative", UriReason.BAD_PATH),
        ("softkey:/a/../b", UriReason.BAD_PATH),
        ("softkey:/a//b", UriReason.BAD_PATH),
        ("softkey:/a/", UriReason.BAD_PATH),
        ("softkey:/a%2fb", UriReason.BAD_PATH),
        ("softkey:/a\n", UriReason.BAD_PATH),
    ],
)
def test_what_is_not_understood_is_refused(text, reason):
    with pytest.raises(L1UriError) as caught:
        parse(text)
    assert caught.value.reason is reason


def test_a_pin_in_a_uri_is_explained_and_not_repeated():
    with pytest.raises(L1UriError) as caught:
        parse(f"pkcs11:token=t;object=k?{MODULE}&pin-value=s3cret")
    assert "pin-source=file:" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_what_a_tool_prints_of_a_token_is_understood():
    printed = "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=;token=t;object=k"
    assert parse(f"{printed}?{MODULE}&pin-source=file:///run/pin") == Pkcs11Uri(
        module_path="/usr/lib/hsm.so",
        token="t",
        serial="",
        manufacturer="SoftHSM project",
        model="SoftHSM v2",
        object="k",
        pin_source="/run/pin",
    )


RFC_7512 = [
    ("pkcs11:", "token, serial or slot-id must name the token"),
    ("pkcs11:object=my-pubkey;type=public", "name the token"),
    ("pkcs11:object=my-key;type=private?pin-source=file:/etc/token", "name the token"),
    (
        (
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc."
            ";model=1.0;object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial="
            "?pin-source=file:/etc/token_pin"
        ),
        "module-path must name the PKCS#11 module",
    ),
    ("pkcs11:object=my-sign-key;type=private?module-name=mypkcs11", "module-path"),
    ("pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1", "name the token"),
    (
        (
            "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc."
            "?pin-value=the-pin"
        ),
        "put it in a file and name the file with pin-source=file:/path",
    ),
    ("pkcs11:slot-description=Sun%20Metaslot", "known are id, manufacturer, model"),
    (
        (
            "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;"
            "library-description=Soft%20Token%20Library;library-version=1.23"
        ),
        "known are id",
    ),
    (
        (
            "pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3"
            ";id=%01%02%03%Ba%dd%Ca%fe%04%05%06"
        ),
        "known are id",
    ),
    (
        "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert",
        "module-path",
    ),
    (
        (
            "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1"
            ";object=my-certificate;type=cert"
        ),
        "module-path",
    ),
    (
        (
            "pkcs11:token=my-token;object=my-certificate;type=cert;vendor-aaa=value-a"
            "?pin-source=file:/etc/token_pin&vendor-bbb=value-b"
        ),
        "known are id",
    ),
]
"""The examples of section 3, and why none of them names a key that a Core can use."""


@pytest.mark.parametrize(("text", "why"), RFC_7512)
def test_the_examples_of_rfc_7512_are_refused_with_what_they_lack(text, why):
    with pytest.raises(L1UriError) as caught:
        parse(text)
    assert why in str(caught.value)
    assert "the-pin" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        (
            (
                "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc."
                ";model=1.0;object=my-certificate;type=private;id=%69%95%3E%5C%F4%BD%EC%91;serial="
                "?pin-source=file:/etc/token_pin"
            ),
            Pkcs11Uri(
                module_path="/usr/lib/hsm.so",
                token="The Software PKCS#11 Softtoken",
                manufacturer="Snake Oil, Inc.",
                model="1.0",
                serial="",
                object="my-certificate",
                id=b"\x69\x95\x3e\x5c\xf4\xbd\xec\x91",
                type=KeyClass.PRIVATE,
                pin_source="/etc/token_pin",
            ),
        ),
        (
            "pkcs11:token=My%20token%25%20created%20by%20Joe;id=%01%02%03%Ba%dd%Ca%fe%04%05%06?",
            Pkcs11Uri(
                module_path="/usr/lib/hsm.so",
                token="My token% created by Joe",
                id=b"\x01\x02\x03\xba\xdd\xca\xfe\x04\x05\x06",
            ),
        ),
        (
            "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate?",
            Pkcs11Uri(
                module_path="/usr/lib/hsm.so",
                token="A name with a substring %;",
                object="my-certificate",
            ),
        ),
        (
            "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=k?",
            Pkcs11Uri(
                module_path="/usr/lib/hsm.so",
                token="Name with a small A with acute: á",
                object="k",
            ),
        ),
    ],
)
def test_the_examples_of_rfc_7512_with_a_key_and_a_module_are_understood(text, uri):
    assert parse(text + ("" if text.endswith("?") else "&") + MODULE) == uri


@given(st.text())
def test_any_text_parses_or_is_refused(text):
    marked = f"Zq7{text}Zq8"
    for candidate in (
        text,
        *(f"{name}:{marked}" for name in SCHEMES),
        *(f"{name}:{marked}?{marked}={marked}" for name in SCHEMES),
        f"pkcs11:token={marked}",
    ):
        try:
            parsed = parse(candidate)
        except L1UriError as error:
            assert "Zq7" not in str(error)
        else:
            assert scheme(candidate) in SCHEMES
            assert parse(candidate) == parsed


@given(st.binary(min_size=1, max_size=255))
def test_an_id_of_any_bytes_survives_percent_encoding(key_id):
    encoded = "".join(f"%{byte:02X}" for byte in key_id)
    uri = parse(f"pkcs11:token=t;id={encoded}?{MODULE}")
    assert isinstance(uri, Pkcs11Uri)
    assert uri.id == key_id


@pytest.mark.parametrize(
    ("text", "name"),
    [("pkcs11:x", "pkcs11"), ("softkey:/x", "softkey"), ("", "unknown"), ("\x1b[2J:", "unknown")],
)
def test_a_scheme_is_safe_to_log(text, name):
    assert scheme(text) == name


def test_parsing_imports_no_provider_and_no_sdk(tmp_path: Path):
    import subprocess
    import sys

    program = (
        "import sys, kcm_core.providers.uri, kcm_core.providers.state;"
        "sys.exit(any(m.split('.')[0] in {'pkcs11', 'cryptography', 'boto3'} for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
