"""A certificate authority and the certificates of its servers, as files.

    ca.pem, ca.key            the authority; the key is needed for new certificates only
    NAME.pem, NAME.key        a server

A repetition changes nothing before a third of a server's validity is left; then the server gets a
new certificate with a new key. The authority is made once: its successor has to be distributed to
every client first, so it is not made here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from kcm_runtime.clock import Clock
from kcm_runtime.files.atomic import place
from kcm_runtime.files.private_files import make_directory
from kcm_runtime.files.secret_file import check_access
from kcm_schemas.codes import Code, KcmError

from kcm_broker.certificates import Authority, Certificate

CA_DAYS: Final = 3650
"""Days that an authority is valid."""

SERVER_DAYS: Final = 397
"""Days that a server's certificate is valid: the most that clients commonly accept."""

RENEWED: Final = 1 / 3
"""The part of a certificate's validity that is left when it is replaced."""


class CertificateFiles:
    """The authority of one broker, in a directory that only its owner reads."""

    def __init__(self, directory: Path, name: str, clock: Clock) -> None:
        """``name`` is in the authority's certificate. Raises ``malformed``, and ``OSError``."""
        self._directory: Final = directory
        self._clock: Final = clock
        make_directory(directory)
        if self.ca.exists():
            key = self.ca.with_suffix(".key")
            check_access(str(key), key.stat())
            saved = Certificate(self.ca.read_bytes(), key.read_bytes())
            self._authority = Authority.load(saved, clock)
        else:
            self._authority = Authority.create(name, CA_DAYS, clock)
            # The key first: an authority whose key is lost could sign nothing.
            made = self._authority.save()
            place(self.ca.with_suffix(".key"), made.key)
            place(self.ca, made.certificate, private=False)

    @property
    def ca(self) -> Path:
        """The authority's certificate, which servers and clients trust."""
        return self._directory / "ca.pem"

    def certificate(self, name: str) -> Path:
        """Return where the certificate of a server is; its key is beside it, as ``.key``."""
        return self._directory / f"{name}.pem"

    def server(self, name: str, addresses: Sequence[str]) -> bool:
        """Make a server's certificate for these host names and IP addresses, unless it is there.

        Returns whether it was made. Raises ``malformed``.
        """
        if name == "ca":
            raise KcmError(Code.MALFORMED, "a server cannot have the name of the authority's files")
        path = self.certificate(name)
        if path.with_suffix(".key").exists() and self._serves(path, addresses):
            return False
        made = self._authority.server(name, addresses, SERVER_DAYS)
        place(path.with_suffix(".key"), made.key)
        place(path, made.certificate, private=False)
        return True

    def _serves(self, path: Path, addresses: Sequence[str]) -> bool:
        """Whether a certificate is of this authority, for these addresses, and valid for long."""
        try:
            found = x509.load_pem_x509_certificate(path.read_bytes())
            mine = x509.load_pem_x509_certificate(self._authority.certificate)
            found.verify_directly_issued_by(mine)
            listed = _addresses(found)
            key = load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        begin, end = found.not_valid_before_utc, found.not_valid_after_utc
        now = dt.datetime.fromtimestamp(self._clock.unix_ms() / 1000, dt.UTC)
        long = end - now > (end - begin) * RENEWED
        # After a crash between the two files, the key is not the certificate's.
        same = key.public_key() == found.public_key()
        return listed == list(addresses) and long and same


def addresses_of(pem: bytes) -> list[str]:
    """Return the host names and IP addresses of a server's certificate; empty if it has none."""
    try:
        return _addresses(x509.load_pem_x509_certificate(pem))
    except (ValueError, x509.ExtensionNotFound):
        return []


def _addresses(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in names]
