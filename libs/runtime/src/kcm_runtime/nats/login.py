"""How a client logs in to a broker: with credentials and TLS, or with a password.

TLS begins with the first byte, on both sides. Otherwise a man in the middle could take it away: a
client that is only *told* to use TLS sends its login to a server that offers none.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

from kcm_schemas.codes import KcmError

from kcm_runtime.config import BusAddress
from kcm_runtime.files.secret_file import SecretFileError, read_password
from kcm_runtime.nats import credentials


class Login:
    """The options of the client library for one address. Files are read at each connection."""

    def __init__(self, address: BusAddress) -> None:
        self._address: Final = address
        self._user: Final = (
            None if address.credentials is None else credentials.FileLogin(address.credentials)
        )

    def check(self) -> None:
        """Read the files once; raises ``SecretFileError`` for one that cannot be used."""
        self.options()
        if self._address.credentials is not None:
            _own_key(self._address.credentials)

    def options(self) -> dict[str, Any]:
        """Return the options; raises ``SecretFileError``."""
        address, found = self._address, dict[str, Any]()
        if self._user is not None:
            found |= {"user_jwt_cb": self._user.user_jwt, "signature_cb": self._user.signature}
        elif address.password_file is not None:
            found |= {"user": address.user, "password": read_password(address.password_file)}
        if address.inbox:
            found["inbox_prefix"] = _inbox(address)
        if address.ca is not None or address.credentials is not None:
            found |= {"tls": _tls(address.ca), "tls_handshake_first": True}
        return found


def _inbox(address: BusAddress) -> str:
    """Return the place of the client's inboxes."""
    if address.credentials is None or address.inbox.count(".") > 1:
        return address.inbox
    return f"{address.inbox}.{_own_key(address.credentials)}"


def _own_key(path: Path) -> str:
    """Return the public key in a credentials file; raises ``SecretFileError``."""
    try:
        return credentials.read(path).key.public
    except KcmError as error:
        raise SecretFileError(f"{path}: {error.detail}") from None


def _tls(ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except OSError as error:  # also what the library says of a file that is no certificate
        raise SecretFileError(f"cannot use the certificate {ca}: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
