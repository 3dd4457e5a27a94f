"""The key of an application on the command line: a file, or its public key only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from kcm.cli.error_report import Problem
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm._internal.client_context import ClientContext

_PUBLIC_SIZE: Final = 32


class AppKey:
    """The key that a command names for an application; read, or made, when it is asked for."""

    def __init__(
        self, context: ClientContext, name: str, file: Path | None, public: str | None
    ) -> None:
        """Without ``file``, it is the context's for this application, or ``NAME.key``.

        Raises ``Problem`` if both are given, and for a public key that is not valid.
        """
        if public is not None and file is not None:
            raise Problem(
                Exit.USAGE, "usage", "--key and --public-key exclude each other", "give one of them"
            )
        self._name: Final = name
        self._system: Final = context.system
        self._public: Final = None if public is None else read_public_key(public)
        self.path: Final = file or context.app_key(name) or Path(f"{name}.key")
        if self.has_file and not self.path.parent.is_dir():
            raise Problem(
                Exit.USAGE, "usage", f"there is no directory for the key {self.path}",
                "name a file in one that is, with --key",
            )  # fmt: skip

    @property
    def has_file(self) -> bool:
        """Whether the private key is in a file here."""
        return self._public is None

    def public(self, *, make: bool) -> bytes | None:
        """Return the public key; ``None`` if there is no file and ``make`` does not allow one.

        Raises ``Problem`` for a file that cannot be used.
        """
        from kcm_runtime.files.identity_file import create_identity, load_identity
        from kcm_runtime.files.secret_file import SecretFileError

        if self._public is not None:
            return self._public
        try:
            if self.path.exists():
                return load_identity(self._name, str(self.path), self._system).public
            if not make:
                return None
            return create_identity(self._name, str(self.path), self._system).public
        except (OSError, SecretFileError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            raise Problem(
                Exit.USAGE, "usage", f"the application's key {self.path}: {text}",
                "name a file of this user with --key; it has 32 bytes and mode 600",
            ) from None  # fmt: skip


def read_public_key(text: str) -> bytes:
    """Return the 32 bytes of ``--public-key``; raises ``Problem``."""
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
