"""The files that a provider's processes may use.

All may read programs, libraries and what names and certificates are looked up with. A provider may
read the files, not directories, that its own variables name; those that a URI names are for its
calls alone. ``KCM_L1_READ`` and ``KCM_L1_WRITE`` list more, separated by colons, for example the
directory of a vendor's tools, or the device of an HSM.

Nothing is allowed that is, contains or is in a path to keep out of: the files of the Core. The root
directory is never allowed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, assert_never

from kcm_core.providers.pkcs11 import modules
from kcm_core.providers.uri import (
    AwsKmsUri,
    AzureKvUri,
    GcpKmsUri,
    L1Uri,
    Pkcs11Uri,
    SoftkeyUri,
)
from kcm_core.unsealer.confinement.landlock import READ, WRITE, Access, Grant

READ_VARIABLE: Final = "KCM_L1_READ"
WRITE_VARIABLE: Final = "KCM_L1_WRITE"
KEEP_OUT_VARIABLE: Final = "KCM_UNSEALER_KEEP_OUT"

_SYSTEM: Final = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload",
    "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/crypto-policies",
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf",
    "/etc/services", "/etc/protocols", "/etc/passwd", "/etc/group", "/etc/localtime",
    "/etc/mime.types", "/etc/os-release", "/run/systemd/resolve",
    "/dev/zero", "/dev/random", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo",
)  # fmt: skip
"""Links are followed. No directory that may have anything of the Core."""

_OF_PROVIDER: Final = {
    "awskms": ("~/.aws",),
    "azurekv": ("~/.azure", "/var/opt/azcmagent/tokens"),
    "gcpkms": ("~/.config/gcloud", "/sys/class/dmi/id"),
    "pkcs11": ("/etc/softhsm2.conf", "/etc/softhsm", "/etc/pkcs11", "~/.config/softhsm2"),
    "softkey": (),
}
"""Where a provider's library looks without a variable."""

_DIRECTORIES: Final = frozenset({"CLOUDSDK_CONFIG", "SSL_CERT_DIR"})
"""Variables that name a directory to read; of others, a directory says nothing (``PWD``)."""

_SOFTHSM: Final = "SOFTHSM2_CONF"
_SOFTHSM_TOKENS: Final = "directories.tokendir"
_CONFIGURATION_MAX: Final = 64 * 1024
"""Characters of SoftHSM's configuration that are read."""


def of_provider(scheme: str, environment: Mapping[str, str]) -> list[Grant]:
    """Return what every call of a provider needs."""
    libraries = {sys.prefix, sys.base_prefix, *(one for one in sys.path if one.startswith("/"))}
    own = (os.path.expanduser(path) for path in _OF_PROVIDER[scheme])  # noqa: PTH111 - no error
    named = [value for name, value in environment.items() if _is_file(name, value)]
    more = _listed(environment.get(READ_VARIABLE, ""))
    writable = list(_listed(environment.get(WRITE_VARIABLE, "")))
    if scheme == "pkcs11":
        named += _beside_modules(environment)
        writable += _token_directories(environment.get(_SOFTHSM, ""))
    return [
        *(Grant(path, READ) for path in (*_SYSTEM, *sorted(libraries), *own, *named, *more)),
        *(Grant(path, WRITE) for path in writable),
        Grant(os.devnull, READ | Access.WRITE_FILE),
    ]


def of_uri(uri: L1Uri) -> list[Grant]:
    """Return what the calls with one URI need besides.

    An operator names these paths. Of a directory, a provider would get what belongs to others.
    """
    match uri:
        case AwsKmsUri() | AzureKvUri() | GcpKmsUri():
            return [] if uri.ca is None else of_authority(uri.ca)
        case Pkcs11Uri():
            return [] if uri.pin_source is None else [_file(uri.pin_source)]
        case SoftkeyUri():
            return [Grant(uri.directory, READ)]
        case _:
            assert_never(uri)


def of_authority(path: str) -> list[Grant]:
    """Return what the calls to a private endpoint need: the certificate of its authority."""
    return [_file(path)]


def _file(path: str) -> Grant:
    return Grant(path, Access.READ_FILE, file=True)


def _is_file(name: str, value: str) -> bool:
    """Whether a variable names a file, which need not exist yet."""
    return value.startswith("/") and (name in _DIRECTORIES or not os.path.isdir(value))  # noqa: PTH112 - no error


def reaches(place: str, keep_out: Iterable[str]) -> bool:
    """Whether a grant for a path would reach a path of the Core. Both are without links."""
    inside, root = place.rstrip("/") + "/", place == "/"
    return root or any(
        place == one or place.startswith(f"{one}/") or one.startswith(inside) for one in keep_out
    )


def keeping_out(paths: Iterable[Path]) -> dict[str, str]:
    """Return the variable that lists the Core's own files."""
    return {KEEP_OUT_VARIABLE: json.dumps([os.path.realpath(path) for path in paths])}


def kept_out(environment: Mapping[str, str]) -> list[str]:
    """Return the paths that ``keeping_out`` listed."""
    return [str(path) for path in json.loads(environment.get(KEEP_OUT_VARIABLE, "[]"))]


def _listed(paths: str) -> Iterator[str]:
    return (path for path in paths.split(":") if path.startswith("/"))


def _beside_modules(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield each module that may be loaded, and its directory, where its own libraries may be."""
    for module in _listed(environment.get(modules.VARIABLE, "")):
        yield module
        yield str(Path(os.path.realpath(module)).parent)


def _token_directories(configuration: str) -> Iterator[str]:
    """Yield the directory that SoftHSM's configuration names: it locks files there."""
    if not configuration.startswith("/"):
        return
    with suppress(OSError, UnicodeDecodeError), Path(configuration).open(encoding="utf-8") as file:
        for line in file.read(_CONFIGURATION_MAX).splitlines():
            name, _, value = (part.strip() for part in line.partition("="))
            if name == _SOFTHSM_TOKENS and value.startswith("/"):
                yield value
