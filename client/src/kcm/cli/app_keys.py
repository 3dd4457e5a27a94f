"""The key of an application on the command line: a file, or its public key only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from kcm.cli.error_report import Problem
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm._internal.client_context import ClientContext

_PUBLIC_SIZE: Final = 32


def public_key(context: ClientContext, name: str, file: Path | None, public: str | None) -> bytes:
    """Return an application's public key; create the file of the private key if it is missing.

    Without ``file``, it is the one that the context names for this application, or ``NAME.key``.
    Raises ``Problem``.
    """
    from kcm_runtime.files.identity_file import create_identity, load_identity
    from kcm_runtime.files.secret_file import SecretFileError

    if public is not None:
        if file is not None:
            raise Problem(
                Exit.USAGE, "usage", "--key and --public-key exclude each other", "give one of them"
            )
        return _read(public)
    path = file or context.app_key(name) or Path(f"{name}.key")
    try:
        if path.exists():
            return load_identity(name, str(path), context.system).public
        return create_identity(name, str(path), context.system).public
    except (OSError, SecretFileError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise Problem(
            Exit.USAGE, "usage", f"the application's key {path}: {text}",
            "name a file of this user with --key; it has 32 bytes and mode 600",
        ) from None  # fmt: skip


def _read(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != _PUBLIC_SIZE:
        raise Problem(
            Exit.USAGE, "malformed", "--public-key is not an Ed25519 public key",
            "give 64 hexadecimal digits",
        )  # fmt: skip
    return raw
