"""A client's credentials file: its user token and the seed of its key.

The form is that of the ``nats`` tool and of leaf node remotes. ``FileLogin`` has the two callbacks
of the client library. It reads the file again at each connect, so that a renewed token counts
without a restart.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors

from kcm_runtime.files.atomic import place
from kcm_runtime.files.secret_file import SecretFileError, read_private
from kcm_runtime.nats.nkeys import KeyKind, SigningKey

USER_TOKEN_MAX: Final = 60_000
"""Characters of a user's token: it is sent in one line, of 64 KB at most (``max_control_line``)."""

FILE_MAX: Final = USER_TOKEN_MAX + 4096
"""Bytes of a credentials file."""

_TOKEN_BEGIN: Final = "-----BEGIN NATS USER JWT-----"  # noqa: S105 - a mark
_TOKEN_END: Final = "------END NATS USER JWT------"  # noqa: S105 - a mark
_SEED_BEGIN: Final = "-----BEGIN USER NKEY SEED-----"
_SEED_END: Final = "------END USER NKEY SEED------"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's token and its key. The text of the token is no secret, and the key does not show."""

    token: str
    key: SigningKey = field(repr=False)


def to_text(credentials: Credentials) -> str:
    """Return the text of a credentials file. It has a seed; the file needs mode 600."""
    lines = (_TOKEN_BEGIN, credentials.token, _TOKEN_END, "")
    seed = (_SEED_BEGIN, credentials.key.seed(), _SEED_END)
    return "\n".join((*lines, *seed)) + "\n"


def from_text(text: str) -> Credentials:
    """Read the text of a credentials file; raises ``malformed`` and ``too_large``."""
    if len(text) > FILE_MAX:
        raise KcmError(Code.TOO_LARGE, f"a credentials file has {FILE_MAX} bytes at most")
    lines = [line.strip() for line in text.splitlines()]
    token = _between(lines, _TOKEN_BEGIN, _TOKEN_END, "user token")
    key = SigningKey.from_seed(_between(lines, _SEED_BEGIN, _SEED_END, "seed"))
    if key.kind is not KeyKind.USER:
        raise KcmError(Code.MALFORMED, "the seed in the credentials is not one of a user")
    if token.count(".") != 2 or not token.isascii() or " " in token:
        raise KcmError(Code.MALFORMED, "the credentials have no user token")
    return Credentials(token, key)


def write(path: Path, credentials: Credentials) -> None:
    """Write or replace a credentials file, mode 600, durably; raises ``OSError``."""
    place(path, to_text(credentials).encode("ascii"))


def read(path: Path) -> Credentials:
    """Read a credentials file that only its owner may read.

    Raises ``SecretFileError`` if it cannot be read or others can read it, ``malformed`` and
    ``too_large``.
    """
    try:
        return from_text(read_private(path, FILE_MAX).decode("ascii"))
    except UnicodeDecodeError:
        failure = KcmError(Code.MALFORMED, "a credentials file has ASCII characters only")
    raise failure


class UnusableCredentialsError(nats_errors.Error):
    """The credentials file cannot be used. The client library tries again, and reads it again.

    It has to be an error of the library: any other one would end its reconnecting for good.
    """


class _Part(Enum):
    TOKEN = 1
    SIGNATURE = 2


class FileLogin:
    """The callbacks ``user_jwt_cb`` and ``signature_cb`` of the client library, from a file.

    Both parts of one login come from one reading of the file, also if it is replaced meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._half: tuple[_Part, Credentials] | None = None

    def user_jwt(self) -> bytearray:
        """Return the user's token; raises ``UnusableCredentialsError``."""
        return bytearray(self._take(_Part.TOKEN).token.encode("ascii"))

    def signature(self, nonce: str) -> bytes:
        """Return the base64 of the signature of the server's nonce.

        Raises ``UnusableCredentialsError``.
        """
        return base64.b64encode(self._take(_Part.SIGNATURE).key.sign(nonce.encode()))

    def _take(self, part: _Part) -> Credentials:
        """Return what the other part of this login used, or read the file for both."""
        if self._half is not None and self._half[0] is not part:
            credentials, self._half = self._half[1], None
            return credentials
        self._half = None
        try:
            credentials = read(self._path)
        except (SecretFileError, KcmError) as error:
            raise UnusableCredentialsError(f"no login: {error}") from None
        self._half = (part, credentials)
        return credentials


def _between(lines: list[str], begin: str, end: str, what: str) -> str:
    """Return the one line between two marks, each of which occurs once."""
    if lines.count(begin) != 1 or lines.count(end) != 1:
        raise KcmError(Code.MALFORMED, f"the credentials need one {what} between its two marks")
    inside = [one for one in lines[lines.index(begin) + 1 : lines.index(end)] if one]
    if len(inside) != 1:
        raise KcmError(Code.MALFORMED, f"the credentials need one {what} between its two marks")
    return inside[0]
