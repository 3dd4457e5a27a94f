"""A certificate authority for the servers and clients of a broker: ECDSA on P-256.

The authority's key is needed for new certificates only and can be kept offline. A server's
certificate is also one of a client, because a region's server is a client of the backbone.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kcm_runtime.clock import Clock
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name

BACKDATE: Final = dt.timedelta(minutes=5)
"""By which a certificate begins in the past, for clocks that are late."""

DAYS_MAX: Final = 3650
"""Days of the longest validity of a certificate."""

NAMES_MAX: Final = 64
"""Addresses in one certificate."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, both in PEM; the key is not encrypted."""

    certificate: bytes
    key: bytes = field(repr=False)


class Authority:
    """A certificate authority; its key is in no ``repr``."""

    __slots__ = ("_certificate", "_clock", "_key")

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, clock: Clock
    ) -> None:
        self._certificate: Final = certificate
        self._key: Final = key
        self._clock: Final = clock

    @classmethod
    def create(cls, name: str, days: int, clock: Clock) -> Authority:
        """Make an authority that is valid for ``days``; raises ``malformed``."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = _usage(key_cert_sign=True, crl_sign=True)
        builder = (
            _begun(name, days, clock)
            .issuer_name(_named(name))
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        return cls(builder.sign(key, hashes.SHA256()), key, clock)

    @classmethod
    def load(cls, saved: Certificate, clock: Clock) -> Authority:
        """Read an authority from PEM; raises ``malformed``, without the input."""
        try:
            certificate = x509.load_pem_x509_certificate(saved.certificate)
            key = _load_key(saved.key)
        except (ValueError, TypeError):
            raise KcmError(Code.MALFORMED, "not a certificate and its key in PEM") from None
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except x509.ExtensionNotFound:
            constraints = None
        if constraints is None or not constraints.value.ca:
            raise KcmError(Code.MALFORMED, "the certificate is not one of an authority")
        if certificate.public_key() != key.public_key():
            raise KcmError(Code.MALFORMED, "the key is not the one of the certificate")
        return cls(certificate, key, clock)

    def save(self) -> Certificate:
        """Return the authority in PEM, for a file that only its owner may read."""
        return _pem(self._certificate, self._key)

    @property
    def certificate(self) -> bytes:
        """The certificate in PEM, which servers and clients trust (``ca.pem``)."""
        return self._certificate.public_bytes(Encoding.PEM)

    def server(self, name: str, addresses: Sequence[str], days: int) -> Certificate:
        """Make a certificate of a server, which is also a client of others.

        ``addresses`` are the host names and IP addresses at which it is reached. Raises
        ``malformed``.
        """
        if not 0 < len(addresses) <= NAMES_MAX:
            raise KcmError(Code.MALFORMED, f"a server has 1 to {NAMES_MAX} addresses")
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._leaf(name, days, uses, [_address(one) for one in addresses])

    def client(self, name: str, days: int) -> Certificate:
        """Make a certificate of a client; raises ``malformed``."""
        return self._leaf(name, days, [ExtendedKeyUsageOID.CLIENT_AUTH], [x509.DNSName(name)])

    def _leaf(
        self,
        name: str,
        days: int,
        uses: list[x509.ObjectIdentifier],
        addresses: list[x509.GeneralName],
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        builder = (
            _begun(name, days, self._clock)
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value),
                critical=False,
            )
        )
        return _pem(builder.sign(self._key, hashes.SHA256()), key)

    def __repr__(self) -> str:
        return "<Authority>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("keys are not pickled")


def _begun(name: str, days: int, clock: Clock) -> x509.CertificateBuilder:
    if not is_name(name):
        raise KcmError(Code.MALFORMED, "a name needs 1 to 63 characters of a-z, 0-9 and -")
    if not 0 < days <= DAYS_MAX:
        raise KcmError(Code.MALFORMED, f"a certificate is valid for 1 to {DAYS_MAX} days")
    now = dt.datetime.fromtimestamp(clock.unix_ms() / 1000, dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _address(text: str) -> x509.GeneralName:
    """Return a host name or an IP address for a certificate; raises ``malformed``."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not 0 < len(text) <= 253 or not all(map(is_name, text.split("."))):
        raise KcmError(Code.MALFORMED, "an address is a host name in lower case or an IP address")
    return x509.DNSName(text)


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError
    return key


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Certificate:
    return Certificate(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
