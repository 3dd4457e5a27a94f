"""The identity of an instance by its configuration: its roster, its name and its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kcm_broker.roles import Role as BrokerRole
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.roster.store import ROSTER
from kcm_schemas.roster import Instance, Roster
from kcm_trust.verify import STATEMENT_MAX, Untrusted, verify_roster

from kcm_deployment.broker_files import inbox_of
from kcm_deployment.doctor.finding import Finding, bad, good, unknown, warn

REQUIRED: Final = (
    "instance", "region", "root_public", "roster", "identity", "state_dir", "region_bus",
)  # fmt: skip
"""What every instance's configuration has."""

_AGAIN: Final = "copy the files that `kcm init` made for this instance again"


def check_instance(content: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the findings about an instance; nothing for a configuration of another kind."""
    if "instance" not in content and "identity" not in content:
        return
    missing = [key for key in REQUIRED if key not in content]
    for key in missing:
        yield bad("settings", f"the configuration has no `{key}`", f"add it, or {_AGAIN}")
    if content.get("development"):
        text = "`development` is on: root keys in plain files, and brokers without TLS, are allowed"
        yield warn("development", text, "remove the line on a machine that is not a developer's")
    if missing:
        return
    root = str(content["root_public"])
    roster = _roster(str(content["roster"]), root)
    if isinstance(roster, Finding):
        yield roster
        return
    seen = _roster(str(Path(str(content["state_dir"]), ROSTER)), root)
    if isinstance(seen, Roster) and seen.version > roster.version:
        roster = seen  # the instance uses the highest that it has seen
    yield good("roster-trust", f"version {roster.version} of the roster is signed by the root")
    found = next((one for one in roster.instances if one.instance == content["instance"]), None)
    yield from _on_roster(content, found)


def _roster(path: str, root_public: str) -> Roster | Finding:
    try:
        with Path(path).open("rb") as file:
            return verify_roster(file.read(STATEMENT_MAX + 1), bytes.fromhex(root_public), 0)
    except OSError as error:
        return unknown("roster-trust", f"cannot read {path}: {error.strerror}", _AGAIN)
    except ValueError:
        text = "`root_public` is not 64 hexadecimal digits"
        return bad("roster-trust", text, _AGAIN)
    except Untrusted as error:
        fix = f"compare `root_public` with the owner of the operator root, or {_AGAIN}"
        return bad("roster-trust", f"the roster {path} is not trusted: {error}", fix)


def _on_roster(content: Mapping[str, Any], found: Instance | None) -> Iterator[Finding]:
    name = content["instance"]
    if found is None or found.retired is not None:
        why = "retired" if found else "not on the roster"
        fix = "correct `instance`, or distribute a roster with it (`kcm roster put`)"
        yield bad("name", f"{name} is {why}", fix)
        return
    if found.region != content["region"]:
        text = f"{name} is of the region {found.region}, by the roster"
        yield bad("name", text, "correct `region`")
    else:
        inside = f", inside of {found.application}" if found.application else ""
        text = f"{name} is on the roster, as a {found.role.value} of {found.region}{inside}"
        yield good("name", text)
    yield _identity(str(content["identity"]), found)
    role = BrokerRole.EMBEDDED if found.application else BrokerRole(found.role.value)
    wanted = inbox_of(role, name)
    for key, bus in content.items():
        for one in bus if isinstance(bus, list) else [bus]:
            if isinstance(one, dict) and "url" in one and one.get("inbox") != wanted:
                text = f"`[{key}]` has another inbox than the broker lets {name} use"
                yield bad("inbox", text, f'set `inbox = "{wanted}"`')


def _identity(path: str, found: Instance) -> Finding:
    try:
        public = load_identity(found.instance, path, "").public
    except SecretFileError as error:
        return unknown("key", str(error), "run the command as the instance's user, or as root")
    if public != found.public_key:
        text = f"{path} is not the key that the roster has for {found.instance}"
        return bad("key", text, _AGAIN)
    return good("key", f"the identity is the one that the roster has for {found.instance}")
