"""Common parts of all providers' URIs: bounds, characters, and refusals.

A refusal's text never repeats the URI, which may contain a secret by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Final, NoReturn

URI_MAX: Final = 2048
"""Characters of a URI: the bound of free text on the wire."""

VALUE_MAX: Final = 255
"""Bytes of one decoded attribute that names something (PKCS#11 labels have 32 or a few more)."""

PATH_MAX: Final = 1024
"""Characters of a file's path."""

PORT_MAX: Final = 65535

QUERY_RAW: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*")
"""A value of a query, before it is decoded."""

_PCT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_FILE_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._@+=,~-]+)+")
_ENDPOINT: Final = re.compile(
    r"(?:https://)?"
    r"(?:\[(?P<ipv6>[0-9a-f:.]{2,45})\]|(?P<host>[a-z0-9][a-z0-9-]{0,62}(?:\.[a-z0-9][a-z0-9-]{0,62})*))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_HTTPS: Final = 443
_ENDPOINTS: Final = "an endpoint is host, host:port or [IPv6]:port, and always HTTPS"


class UriReason(StrEnum):
    """Why a URI was refused."""

    TOO_LONG = "too_long"
    UNKNOWN_SCHEME = "unknown_scheme"
    BAD_SYNTAX = "bad_syntax"
    BAD_VALUE = "bad_value"
    BAD_PATH = "bad_path"
    BAD_NAME = "bad_name"
    DUPLICATE_ATTRIBUTE = "duplicate_attribute"
    UNKNOWN_ATTRIBUTE = "unknown_attribute"
    PIN_VALUE = "pin_value"
    MISSING_TOKEN = "missing_token"  # noqa: S105 - a reason, no credential
    MISSING_KEY = "missing_key"
    MISSING_MODULE = "missing_module"
    MISSING_REGION = "missing_region"


_TEXT: Final = {
    UriReason.TOO_LONG: f"the URI is longer than {URI_MAX} characters",
    UriReason.UNKNOWN_SCHEME: "the scheme is none of: awskms, azurekv, gcpkms, pkcs11, softkey",
    UriReason.BAD_SYNTAX: "attributes are name=value, percent-encoded",
    UriReason.BAD_VALUE: "a value is empty, too long, not UTF-8 or not printable",
    UriReason.BAD_PATH: "a path is absolute, without . or .. and of plain characters",
    UriReason.BAD_NAME: "the key's name is not valid for its provider",
    UriReason.DUPLICATE_ATTRIBUTE: "an attribute is given twice",
    UriReason.UNKNOWN_ATTRIBUTE: "an attribute is unknown",
    UriReason.PIN_VALUE: "a URI must not contain a PIN: put it in a file and name the file with "
    "pin-source=file:/path",
    UriReason.MISSING_TOKEN: "token, serial or slot-id must name the token",
    UriReason.MISSING_KEY: "the URI must name the key",
    UriReason.MISSING_MODULE: "module-path must name the PKCS#11 module",
    UriReason.MISSING_REGION: "region must name the key's region",
}


class L1UriError(ValueError):
    """An invalid URI; ``reason`` says why, and the text never repeats the URI.

    ``hint`` is a provider's text in place of the general one.
    """

    def __init__(self, reason: UriReason, hint: str = "") -> None:
        super().__init__(f"{reason.value}: {hint or _TEXT[reason]}")
        self.reason = reason


def refuse(reason: UriReason, hint: str = "") -> NoReturn:
    """Raise ``L1UriError``."""
    raise L1UriError(reason, hint)


def attributes(
    part: str,
    separator: str,
    known: Iterable[str],
    allowed: re.Pattern[str],
    may_be_empty: Container[str] = (),
) -> Iterator[tuple[str, bytes]]:
    """Yield decoded ``name=value`` pairs between separators; raises ``L1UriError``."""
    names = sorted(known)
    for item in part.split(separator) if part else ():
        name, equals, raw = item.partition("=")
        if name == "pin-value":
            refuse(UriReason.PIN_VALUE)
        if not equals or allowed.fullmatch(raw) is None:
            refuse(UriReason.BAD_SYNTAX)
        if name not in names:
            refuse(UriReason.UNKNOWN_ATTRIBUTE, f"known are {', '.join(names)}")
        value = _PCT.sub(lambda hit: bytes([int(hit[1], 16)]), raw.encode("ascii"))
        if len(value) > PATH_MAX or (not value and name not in may_be_empty):
            refuse(UriReason.BAD_VALUE)
        yield name, value


def query(part: str, known: Iterable[str]) -> Mapping[str, str]:
    """Return the query of a provider's URI: each attribute once, as text; raises ``L1UriError``."""
    found: dict[str, str] = {}
    for name, value in attributes(part, "&", known, QUERY_RAW):
        if name in found:
            refuse(UriReason.DUPLICATE_ATTRIBUTE)
        found[name] = text_of(value)
    return found


def text_of(value: bytes) -> str:
    """Return printable text; raises ``L1UriError``."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise L1UriError(UriReason.BAD_VALUE) from None
    if not text.isprintable():
        refuse(UriReason.BAD_VALUE)
    return text


def file_path(path: str) -> str:
    """Return an absolute path of plain characters; raises ``L1UriError``."""
    parts = path.split("/")
    if len(path) > PATH_MAX or _FILE_PATH.fullmatch(path) is None or {".", ".."} & set(parts):
        refuse(UriReason.BAD_PATH)
    return path


def file_uri(value: str) -> str:
    """Return the path of ``file:/path`` or ``file:///path``; raises ``L1UriError``."""
    # RFC 7512 also allows a bare path and commands: a Core runs no command that a URI names.
    kind, _, path = value.partition(":")
    if kind != "file":
        refuse(UriReason.BAD_PATH, "name a file as file:/path; commands are not run")
    return file_path(path.removeprefix("//"))


def host_and_port(value: str) -> str:
    """Return ``host`` or ``host:port`` in canonical form; raises ``L1UriError``.

    ``https://`` may precede it. An IPv6 address is in brackets, and port 443 is omitted.
    """
    found = _ENDPOINT.fullmatch(value.lower())
    if len(value) > VALUE_MAX or found is None:
        refuse(UriReason.BAD_VALUE, _ENDPOINTS)
    host = found["host"]
    if host is None:
        try:
            host = f"[{IPv6Address(found['ipv6'])}]"
        except ValueError:
            raise L1UriError(UriReason.BAD_VALUE, _ENDPOINTS) from None
    port = int(found["port"] or _HTTPS)
    if not 0 < port <= PORT_MAX:
        refuse(UriReason.BAD_VALUE, _ENDPOINTS)
    return host if port == _HTTPS else f"{host}:{port}"
