"""The configuration of an instance or of provisioning, read without knowing its component.

Every table with a ``url`` is an address of a broker. Every value of a known key, and every value
that is the absolute path of something that exists, is a file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kcm_broker.roles import Account
from kcm_runtime.config import BusAddress, ConfigError
from pydantic import ValidationError

from kcm_deployment.doctor.finding import Finding, bad, warn
from kcm_deployment.doctor.instance import check_instance
from kcm_deployment.doctor.plan import Address, Kind, Named, Plan
from kcm_deployment.doctor.rights import streams_of

_KINDS: Final[Mapping[str, Kind]] = {
    "identity": Kind.SECRET,
    "seal_key": Kind.SECRET,
    "password_file": Kind.SECRET,
    "key": Kind.SECRET,
    "credentials": Kind.CREDENTIALS,
    "ca": Kind.CERTIFICATE,
    "roster": Kind.PUBLIC,
    "state_dir": Kind.STATE,
    "journal": Kind.STATE,
    "key_store": Kind.STATE,
}

_MADE_BY_OTHERS: Final = frozenset({"ready_file", "socket"})
"""What exists only while something runs."""

_ACCOUNTS: Final = {"control_bus": Account.CONTROL, "vault_bus": Account.VAULT}


def read_configuration(path: Path) -> Plan:
    """Read a file; raises ``ConfigError`` if it cannot be read or is not TOML."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for _, table in _tables(content):
        table.update(_beside(table, path.parent))
    name = content.get("instance")
    addresses: list[Address] = []
    findings = list(check_instance(content))
    for key, table in _tables(content):
        if "url" in table:
            _add_address(key, table, content, addresses, findings)
    files = _files(content)
    if not addresses and not findings:
        text = f"{path} names no broker"
        findings.append(bad("configuration", text, "name the file of an instance"))
    return Plan(
        name if isinstance(name, str) else path.name,
        (Named("configuration", path, Kind.PUBLIC), *files),
        tuple(addresses),
        tuple(findings),
    )


def _add_address(
    key: str,
    table: Mapping[str, Any],
    content: Mapping[str, Any],
    addresses: list[Address],
    findings: list[Finding],
) -> None:
    known = {name: value for name, value in table.items() if name in BusAddress.model_fields}
    try:
        bus = BusAddress.model_validate(known)
    except ValidationError as error:
        places = (
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
            for one in error.errors(include_input=False, include_url=False, include_context=False)
        )
        text = "; ".join(places)
        findings.append(bad(key, text, f"correct `[{key}]` in the configuration"))
        return
    if not bus.inbox:
        text = f"`[{key}]` has no inbox, so its login may receive the replies of others"
        findings.append(warn(f"{key}-inbox", text, 'add `inbox = "_INBOX.ROLE.INSTANCE"`'))
    region = str(table.get("region") or content.get("region") or "")
    account = _ACCOUNTS.get(key, Account.REGION)
    name = f"{key} {region}" if "region" in table else key
    made = Address(name, bus, region, account)
    addresses.append(replace(made, streams=streams_of(made)))


def _beside(table: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return the paths of a table, which are relative to the file's directory."""
    paths = (*_KINDS.keys() - {"key"}, "ready_file")
    return {key: str(directory / table[key]) for key in paths if isinstance(table.get(key), str)}


def _tables(content: dict[str, Any], key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every table, with the last part of its name."""
    yield key, content
    for name, value in content.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from _tables(one, name)


def _files(content: dict[str, Any]) -> Iterator[Named]:
    seen: set[tuple[str, str]] = set()
    for _, table in _tables(content):
        for key, value in table.items():
            kind = _kind(key, value)
            if kind is not None and (key, value) not in seen:
                seen.add((key, value))
                yield Named(key, Path(value), kind)


def _kind(key: str, value: object) -> Kind | None:
    if not isinstance(value, str) or not value or key in _MADE_BY_OTHERS:
        return None
    if key in _KINDS:
        return _KINDS[key]
    if key.endswith(("_key", "password_file")):
        return Kind.SECRET
    return Kind.PUBLIC if value.startswith("/") and Path(value).is_file() else None
