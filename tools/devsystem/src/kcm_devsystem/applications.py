"""Applications of a development system: what the context's application may ask for.

A person uses ``kcm app create``. The demonstration names its two tenants. Tests and benchmarks make
many, so they allow every tenant, which two operators sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kcm import Admin, ClientContext
from kcm._internal import app_entries
from kcm_deployment.trust_files import Trust
from kcm_runtime.clock import SystemClock
from kcm_runtime.files.identity_file import load_identity
from kcm_schemas.app import App
from kcm_schemas.codec import encode
from kcm_schemas.signed import Kind

from kcm_devsystem.broker_users import EVERYTHING, app_credentials, let_in
from kcm_devsystem.identities import APP, APPROVER, SYSTEM

PLAIN: Final = "plain"
"""An application that needs no key, for tests that speak to a Gateway without the SDK."""

_PLAIN_KEY: Final = bytes(31) + b"\1"
"""A public key to which no private key is known."""

DAYS: Final = 3650


def entry(context: ClientContext, places: Sequence[str]) -> App:
    """Return the first entry of the context's application, with grants (``TENANT/SERVICE``)."""
    identity = context.app_identity()
    assert identity is not None, "the context of a development system names an application"
    return _entry(context, identity.name, identity.public, places)


async def allow_everything(context: ClientContext, directory: Path, *, plain: bool) -> None:
    """Let the context's application, and with ``plain`` any client, ask for every tenant."""
    wanted = [entry(context, ["*/*"])]
    if plain:
        without_key = _entry(context, PLAIN, _PLAIN_KEY, ["*/*"])
        wanted.append(without_key.model_copy(update={"plain": True}))
    await _put(context, directory, wanted)
    _let_in(context, directory, EVERYTHING)


def let_in_for(context: ClientContext, directory: Path, entry: App) -> None:
    """Let the brokers carry what the context's application asks by the grants of an entry.

    A client that is connected gets the change at its next connection.
    """
    grants = [f"{verb}.{one.tenant}.{one.service}" for one in entry.grants for verb in one.verbs]
    _let_in(context, directory, grants)


async def allow(context: ClientContext, directory: Path, name: str, public: bytes) -> None:
    """Let one more application, with this public key, ask for every tenant."""
    await _put(context, directory, [_entry(context, name, public, ["*/*"])])


async def _put(context: ClientContext, directory: Path, wanted: Sequence[App]) -> None:
    """Store entries that two operators sign."""
    approver = load_identity(APPROVER, str(Trust(directory).key(APPROVER)), SYSTEM)
    async with Admin.open(context) as admin:
        for one in wanted:
            signed = approver.countersign(admin.identity.sign(Kind.APP, one))
            for region in context.regions:
                await admin.put(region, "app", encode(signed))


def _let_in(context: ClientContext, directory: Path, grants: Sequence[str]) -> None:
    for region in context.regions:
        let_in(_signers(context, region), app_credentials(directory, region), APP, grants)


def _entry(context: ClientContext, name: str, public: bytes, places: Sequence[str]) -> App:
    return app_entries.first_entry(
        name,
        public,
        [app_entries.read_grant(place) for place in places],
        context.regions,
        now_ms=SystemClock().unix_ms(),
        days=DAYS,
    )


def _signers(context: ClientContext, region: str) -> Path:
    found = context.signers_path(region)
    assert found is not None, "the context of a development system names the keys that sign"
    return found
