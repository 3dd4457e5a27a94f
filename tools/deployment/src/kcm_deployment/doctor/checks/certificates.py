"""Certificates: in files, and as a broker shows them."""

from __future__ import annotations

import datetime as dt
from typing import Final

from cryptography import x509

from kcm_deployment.doctor.finding import Finding, bad, good, warn
from kcm_deployment.doctor.plan import Named

DAYS_LOW: Final = 30
"""Days that a certificate should be valid, so that there is time to replace it."""


def days_left(check: str, what: str, until: dt.datetime, now: dt.datetime, fix: str) -> Finding:
    """Judge the end of a certificate's validity."""
    days = (until - now) // dt.timedelta(days=1)
    if until <= now:
        return bad(check, f"{what} expired on {until:%Y-%m-%d}", fix)
    text = f"{what} is valid for another {days} days"
    return warn(check, text, fix) if days < DAYS_LOW else good(check, text)


def check_certificate_file(named: Named, pem: bytes, now: dt.datetime) -> Finding:
    """Judge a file with the certificates of authorities."""
    check = f"{named.key}-certificate"
    fix = f"replace {named.path} by the certificate of the authority that signs the broker's"
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return bad(check, f"{named.path} is no certificate in PEM", fix)
    until = min(one.not_valid_after_utc for one in found)
    return days_left(check, str(named.path), until, now, fix)
