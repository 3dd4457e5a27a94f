"""Which variables and which files a provider's processes get."""

from __future__ import annotations

from pathlib import Path

import pytest
from kcm_core.providers.uri import parse
from kcm_core.unsealer.confinement.environment import environment_for, first_scheme
from kcm_core.unsealer.confinement.grants import (
    keeping_out,
    kept_out,
    of_provider,
    of_uri,
    reaches,
)
from kcm_core.unsealer.confinement.landlock import READ, WRITE, Access, Grant, lacks
from kcm_core.unsealer.kinds import SCHEMES, BadHello, Kind, hello, kind_in, kind_of

SHARED = {"HOME": "/h", "KCM_DEVELOPMENT": "1", "LC_ALL": "C", "KCM_UNSEALER_KEEP_OUT": "/k"}
CLOUDS = {"https_proxy": "p", "NO_PROXY": "n", "KCM_L1_ENDPOINTS": "e", "SSL_CERT_FILE": "/c"}
OWN = {
    "awskms": {"AWS_SECRET_ACCESS_KEY": "a"},
    "azurekv": {"AZURE_CLIENT_SECRET": "z", "IDENTITY_HEADER": "i"},
    "gcpkms": {"GOOGLE_APPLICATION_CREDENTIALS": "/g", "GRPC_VERBOSITY": "v"},
    "pkcs11": {"SOFTHSM2_CONF": "/s", "KCM_L1_MODULES": "/m", "VendorConfiguration": "/v"},
    "softkey": {},
}
MANAGER = {"LISTEN_FDS": "1", "NOTIFY_SOCKET": "/n", "INVOCATION_ID": "i"}


def everything():
    return {**SHARED, **CLOUDS, **MANAGER, **{k: v for own in OWN.values() for k, v in own.items()}}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_provider_gets_its_own_variables_and_the_shared_ones(scheme):
    clouds = CLOUDS if scheme in {"awskms", "azurekv", "gcpkms"} else {}
    assert environment_for(scheme, everything()) == SHARED | clouds | OWN[scheme]


@pytest.mark.parametrize("scheme", ["awskms", "azurekv", "gcpkms", "pkcs11"])
def test_the_first_server_is_one_that_the_environment_is_for(scheme):
    assert first_scheme({**SHARED, **CLOUDS, **OWN[scheme]}) == scheme


def test_without_variables_of_a_provider_the_first_server_is_for_development():
    assert first_scheme(SHARED) == "softkey"
    assert first_scheme({}) == "pkcs11"


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("softkey:/a", Kind("softkey")),
        ("pkcs11:token=t;object=o?module-path=/m", Kind("pkcs11")),
        ("azurekv:v.vault.azure.net/k", Kind("azurekv")),
        ("azurekv:v.example/k?ca=file:/ca.pem", Kind("azurekv", "/ca.pem")),
    ],
)
def test_there_is_a_server_for_each_provider_and_private_authority(uri, kind):
    assert kind_of(parse(uri)) == kind
    assert kind_in(hello(kind)) == kind


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"kcm-unsealer 1",
        b"kcm-unsealer 2\nawskms\n",
        b"kcm-unsealer 1\nother\n",
        b"kcm-unsealer 1\nawskms\nrelative",
        b"kcm-unsealer 1\n\xff\n",
        b"kcm-unsealer 1\nawskms\n/" + b"x" * 2000,
    ],
)
def test_a_first_packet_that_names_no_server_is_refused(packet):
    with pytest.raises(BadHello):
        kind_in(packet)


def readable(grants):
    return {one.path for one in grants if Access.READ_FILE in one.access}


def test_the_files_that_a_providers_variables_name_are_readable(tmp_path):
    named = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "later"), "PWD": "/", "X": str(tmp_path)}
    found = readable(of_provider("awskms", named))
    assert str(tmp_path / "later") in found
    assert not {"/", str(tmp_path), "/proc", "/etc", "/run"} & found


def test_a_token_directory_may_be_written(tmp_path):
    conf = tmp_path / "conf"
    conf.write_text(f"# x\ndirectories.tokendir = {tmp_path}/tokens\nlog.level = ERROR\n")
    grants = of_provider("pkcs11", {"SOFTHSM2_CONF": str(conf)})
    assert Grant(f"{tmp_path}/tokens", WRITE) in grants
    assert Grant(str(conf), READ) in grants
    assert not [one for one in of_provider("awskms", {}) if one.access == WRITE]


def test_what_an_operator_lists_is_allowed():
    grants = of_provider("pkcs11", {"KCM_L1_READ": "/a:relative:/b", "KCM_L1_WRITE": "/c"})
    assert {Grant("/a", READ), Grant("/b", READ), Grant("/c", WRITE)} <= set(grants)
    assert "relative" not in readable(grants)


def test_a_modules_own_directory_is_readable(tmp_path):
    (tmp_path / "link.so").symlink_to(tmp_path / "vendor" / "module.so")
    grants = of_provider("pkcs11", {"KCM_L1_MODULES": f"{tmp_path}/link.so"})
    assert {f"{tmp_path}/link.so", f"{tmp_path}/vendor"} <= readable(grants)


@pytest.mark.parametrize(
    ("uri", "grant"),
    [
        ("softkey:/a", Grant("/a", READ)),
        (
            "pkcs11:token=t;object=o?module-path=/m&pin-source=file:/pin",
            Grant("/pin", Access.READ_FILE, file=True),
        ),
        (
            "azurekv:v.example/k?ca=file:/ca.pem",
            Grant("/ca.pem", Access.READ_FILE, file=True),
        ),
    ],
)
def test_what_a_uri_names_is_readable(uri, grant):
    assert of_uri(parse(uri)) == [grant]


@pytest.mark.parametrize("place", ["/", "/a", "/a/core", "/a/core/deep/file", "/r/seal:key\n"])
def test_what_reaches_the_cores_files_is_refused(place):
    assert reaches(place, ["/a/core", "/r/seal:key\n"])


@pytest.mark.parametrize("place", ["/a/core2", "/a/cor", "/r/seal", "/r/seal:key\n2", "/b", "/a/x"])
def test_what_is_beside_the_cores_files_is_allowed(place):
    assert not reaches(place, ["/a/core", "/r/seal:key\n"])


def test_the_cores_files_are_listed_by_their_true_paths(tmp_path):
    (tmp_path / "true").mkdir()
    (tmp_path / "link").symlink_to("true")
    listed = kept_out(keeping_out([tmp_path / "link" / "key", Path("/x:y\n")]))
    assert listed == [str(tmp_path / "true" / "key"), "/x:y\n"]
    assert kept_out({}) == []
    assert reaches("/", [])


@pytest.mark.parametrize(
    ("abi", "words"),
    [
        (0, ("no Landlock",)),
        (1, ("Landlock without network", "Landlock without signals")),
        (5, ("Landlock without signals",)),
        (6, ()),
        (7, ()),
    ],
)
def test_what_a_kernel_lacks_is_named(abi, words):
    assert lacks(abi) == words
