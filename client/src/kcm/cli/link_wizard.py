"""Linking a root key step by step: a person is asked for what is missing, and told what to do."""

from __future__ import annotations

from typing import Any, Final, Literal

import click

from kcm.cli.error_report import Problem
from kcm.cli.providers import ask

Model = Literal["byok", "hyok"]

FORMS: Final = """
Where is the key?
  awskms:arn:aws:kms:REGION:ACCOUNT:key/ID                   AWS KMS
  gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K      Google Cloud KMS
  azurekv:NAME.vault.azure.net/KEY                           Azure Key Vault
  pkcs11:token=T;object=K?module-path=/hsm.so&pin-source=file:/path    an HSM of your own
(docs/l1 has a page for each.)"""

MODELS: Final = """
byok: any key; hyok: shorter leases, for an HSM on the customer's premises
The model"""


def walk(name: str | None, uri: str | None, model: Model | None) -> tuple[str, str, Model] | None:
    """Ask for the link's name, the key's URI and the model; none when nothing is granted.

    Raises ``Problem`` where the providers are not installed or a given URI is not understood, and
    ``click.Abort`` at the end of the input.
    """
    name = name or click.prompt("A name for the link", value_proc=_named, err=True)
    if uri is None:
        click.echo(FORMS, err=True)
        uri, needed = click.prompt("The key's URI", value_proc=_understood, err=True)
    else:
        needed = ask("policy", uri)
    model = model or _chosen(needed["provider"])
    click.echo("\nGrant this to the key:\n\n" + needed["policy"], err=True)
    granted = click.confirm("Granted? Try the key", default=True, err=True)
    return (name, uri, model) if granted else None


def _named(text: str) -> str:
    from kcm_schemas.names import is_name

    if not is_name(text):
        raise click.UsageError("a name has 1 to 63 characters of a-z, 0-9 and -")
    return text


def _understood(uri: str) -> tuple[str, dict[str, Any]]:
    """A URI with what its key's owner has to grant."""
    try:
        return uri, ask("policy", uri)
    except Problem as problem:
        if problem.report.code != "malformed":
            raise
        raise click.UsageError(problem.report.detail) from None


def _chosen(provider: str) -> Model:
    own: Model = "hyok" if provider == "pkcs11" else "byok"
    models: click.Choice[Model] = click.Choice(["byok", "hyok"])
    return click.prompt(MODELS, type=models, default=own, err=True)
