"""Checks that the originals of a deployment are whole, and not those of an old backup.

A key that is missing would be made again, and then it is another one: what the old one wrapped or
signed would be lost. So nothing is made while the roster, an account or a bundle shows that there
was something before.
"""

from __future__ import annotations

import json
from pathlib import Path

from kcm_broker.claims import verify_account
from kcm_broker.realm import Realm
from kcm_runtime.files.identity_file import load_identity
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import Roster
from kcm_trust.identity import ROOT
from kcm_trust.verify import Untrusted, verify_roster

from kcm_deployment.broker_files import BACKBONE
from kcm_deployment.deployment import Deployment
from kcm_deployment.errors import DeploymentError
from kcm_deployment.layouts import CONFIG, SERVER_CONFIG, Layout
from kcm_deployment.trust_files import Trust


def check_originals(
    directory: Path, authority: Path, deployment: Deployment, layout: Layout, roster: Roster | None
) -> None:
    """Raise ``DeploymentError`` if an original is missing, is another one, or is older than a copy.

    ``roster`` is the one among the originals.
    """
    trust = Trust(authority)
    bundles = [
        directory / layout.instance_bundle(one)
        for one in deployment.members
        if (directory / layout.instance_bundle(one) / CONFIG).exists()
    ]
    if bundles and not trust.key(ROOT).exists():
        raise _restore(authority, f"{bundles[0]} is set up, but its authority is missing")
    if bundles and roster is None:
        raise _restore(authority, f"{bundles[0]} is set up, but {trust.roster} is missing")
    if roster is None:
        return
    _check_keys(authority, trust, roster)
    root = load_identity(ROOT, str(trust.key(ROOT)), "").public
    for bundle in bundles:
        _check_roster(authority, bundle / "roster", root, roster)
    _check_accounts(directory, authority, deployment, layout)


def _check_keys(authority: Path, trust: Trust, roster: Roster) -> None:
    """Each active signer of the roster has its key here, and each region its seal key."""
    signers = [(one.instance, one.public_key, one.retired) for one in roster.instances]
    signers += [(one.operator, one.public_key, one.retired) for one in roster.operators]
    for name, public, retired in signers:
        if retired is not None:
            continue
        if not trust.key(name).exists():
            raise _restore(authority, f"{trust.key(name)} is missing, and the roster has its key")
        if load_identity(name, str(trust.key(name)), roster.system).public != public:
            raise _restore(authority, f"{trust.key(name)} is not the key on the roster")
    for region in roster.regions:
        if not trust.seal_key(region.region).exists():
            raise _restore(authority, f"{trust.seal_key(region.region)} is missing")


def _check_roster(authority: Path, copy: Path, root: bytes, roster: Roster) -> None:
    """A bundle has no later roster than the originals, and no other one of that version."""
    try:
        found = verify_roster(copy.read_bytes(), root, 0)
    except (OSError, Untrusted):
        return  # it is written again
    if found.version > roster.version or (found.version == roster.version and found != roster):
        text = f"{copy} is version {found.version} of the roster, and the original {roster.version}"
        raise _restore(authority, text)


def _check_accounts(
    directory: Path, authority: Path, deployment: Deployment, layout: Layout
) -> None:
    """A server's bundle has no later account than the originals: it may have revocations."""
    places = [(BACKBONE, layout.server_bundle("", one)) for one in deployment.backbone]
    places += [(name, layout.server_bundle(name, one)) for name, one in deployment.servers]
    for broker, bundle in places:
        realm = authority / "realms" / broker
        if not (directory / bundle / SERVER_CONFIG).exists():
            continue
        if not realm.is_dir():
            raise _restore(authority, f"{bundle} is set up, but {realm} is missing")
        own = {path.read_text("ascii") for path in realm.glob("accounts/*/token.jwt")}
        operators = Realm.operators_in(realm)
        issued = {}
        for token in own:
            claims = verify_account(token, operators)
            issued[claims.subject] = claims.issued
        for public, token in _preloaded(directory / bundle / SERVER_CONFIG).items():
            try:
                claims = verify_account(token, operators)
            except KcmError:
                raise _restore(authority, f"{bundle} trusts another broker operator") from None
            if claims.issued > issued.get(public, 0):
                raise _restore(authority, f"{bundle} has a later account than {realm}")


def _preloaded(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text())["resolver_preload"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # it is written again


def _restore(authority: Path, text: str) -> DeploymentError:
    return DeploymentError(
        text,
        hint=f"restore {authority} from its newest backup; nothing was changed",
    )
