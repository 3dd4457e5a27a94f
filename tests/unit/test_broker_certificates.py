"""The certificate authority of a broker."""

import datetime as dt
import ipaddress
import pickle

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Use
from kcm_broker.certificates import Authority, Certificate
from kcm_schemas.codes import Code, KcmError

from tests.unit.broker_rig import NOW, StoppedClock

AUTHORITY = Authority.create("kcm-ca", 365, StoppedClock())


def read(made):
    return x509.load_pem_x509_certificate(made.certificate)


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


def test_the_authority_signs_certificates_and_nothing_below_it():
    certificate = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    assert isinstance(certificate.public_key().curve, ec.SECP256R1)
    constraints = extension(certificate, x509.BasicConstraints)
    assert (constraints.ca, constraints.path_length) == (True, 0)
    usage = extension(certificate, x509.KeyUsage)
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature
    certificate.verify_directly_issued_by(certificate)


def test_a_server_is_also_a_client_and_has_its_addresses():
    certificate = read(AUTHORITY.server("eu-1", ["localhost", "eu-1.example.org", "127.0.0.1"], 30))
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate))
    assert set(extension(certificate, x509.ExtendedKeyUsage)) == {Use.SERVER_AUTH, Use.CLIENT_AUTH}
    names = extension(certificate, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "eu-1.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert not extension(certificate, x509.BasicConstraints).ca
    now = dt.datetime.fromtimestamp(NOW, dt.UTC)
    assert certificate.not_valid_before_utc == now - dt.timedelta(minutes=5)
    assert certificate.not_valid_after_utc == now + dt.timedelta(days=30)


def test_a_client_is_no_server():
    certificate = read(AUTHORITY.client("core-1", 30))
    assert set(extension(certificate, x509.ExtendedKeyUsage)) == {Use.CLIENT_AUTH}


def test_an_authority_is_saved_and_loaded():
    again = Authority.load(AUTHORITY.save(), StoppedClock())
    made = read(again.client("core-1", 1))
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate))


def test_what_is_no_authority_is_refused():
    saved, other = AUTHORITY.save(), Authority.create("other", 1, StoppedClock()).save()
    for bad in (
        Certificate(saved.certificate, other.key),
        Certificate(b"", saved.key),
        Certificate(saved.certificate, b""),
        Certificate(saved.key, saved.certificate),
    ):
        with pytest.raises(KcmError) as caught:
            Authority.load(bad, StoppedClock())
        assert caught.value.code is Code.MALFORMED
    leaf = AUTHORITY.server("eu-1", ["localhost"], 1)
    with pytest.raises(KcmError):
        Authority.load(leaf, StoppedClock())


@pytest.mark.parametrize(
    ("name", "addresses", "days"),
    [
        ("EU", ["localhost"], 1),
        ("", ["localhost"], 1),
        ("eu-1", [], 1),
        ("eu-1", ["*"], 1),
        ("eu-1", ["*.example.org"], 1),
        ("eu-1", ["Example.org"], 1),
        ("eu-1", ["a..b"], 1),
        ("eu-1", ["local host"], 1),
        ("eu-1", ["localhost"] * 65, 1),
        ("eu-1", ["localhost"], 0),
        ("eu-1", ["localhost"], 100_000),
    ],
)
def test_bad_names_and_times_are_refused(name, addresses, days):
    with pytest.raises(KcmError) as caught:
        AUTHORITY.server(name, addresses, days)
    assert caught.value.code is Code.MALFORMED


def test_a_key_shows_nowhere():
    assert "PRIVATE" not in repr(AUTHORITY) + repr(AUTHORITY.save())
    with pytest.raises(TypeError):
        pickle.dumps(AUTHORITY)
