"""Linking a root key step by step: a person is asked for what is missing, and told what to do."""

from __future__ import annotations

from typing import Final, Literal, cast

import click

from kcm.cli.problems import Problem
from kcm.cli.providers import ask

Model = Literal["byok", "hyok"]

FORMS: Final = """
Where is the key?
  awskms:arn:aws:kms:REGION:ACCOUNT:key/ID                   AWS KMS
  gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K      Google Cloud KMS
  azurekv:NAME.vault.azure.net/KEY                           Azure Key Vault
  pkcs11:token=T;object=K?module-path=/hsm.so&pin-source=file:/path    an HSM of your own
(docs/l1 has a page for each.)"""


def walk(name: str | None, uri: str | None, model: Model | None) -> tuple[str, str, Model]:
    """Ask for the link's name, the key's URI and the model; return when what is needed is granted.

    Raises ``Problem`` where the providers are not installed, and ``click.Abort`` at the end of the
    input.
    """
    name = name or click.prompt("A name for the link", err=True)
    if uri is None:
        click.echo(FORMS, err=True)
    needed = None
    while needed is None:
        uri = uri or click.prompt("The key's URI", err=True)
        try:
            needed = ask("policy", uri)
        except Problem as problem:
            if problem.report.code != "malformed":
                raise
            click.echo(problem.report.detail, err=True)
            uri = None
    assert name is not None
    assert uri is not None
    if model is None:
        said = "byok: a key in a cloud's key store; hyok: a key in the customer's own HSM"
        own = needed["provider"] == "pkcs11"
        model = cast(
            "Model",
            click.prompt(
                f"{said}\nThe model", type=click.Choice(["byok", "hyok"]),
                default="hyok" if own else "byok", err=True,
            ),
        )  # fmt: skip
    click.echo("\nGrant this to the key:\n\n" + needed["policy"], err=True)
    click.confirm("Granted? Try the key", default=True, abort=True, err=True)
    return name, uri, model
