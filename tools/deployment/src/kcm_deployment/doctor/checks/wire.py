"""A broker's port before any login: TLS from the first byte, the certificate, the server's age."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final

from kcm_runtime.nats.connection import HEADERS_RESERVE
from kcm_runtime.nats.server_version import LEAST, check_version
from kcm_runtime.nats.stream_protection import Unfit
from kcm_schemas import limits

from kcm_deployment.doctor.checks.certificates import days_left
from kcm_deployment.doctor.finding import Finding, bad, good, unknown
from kcm_deployment.doctor.wire import WireFacts

_TLS_FIRST: Final = (
    "set `handshake_first: true` in `tls` of the server, and `ca` beside the url of every client"
)
_TLS_NEW: Final = 'set `min_version: "1.3"` in `tls` of the server'
_PAYLOAD: Final = limits.BODY_MAX + HEADERS_RESERVE


def check_wire(facts: WireFacts, now: dt.datetime) -> tuple[Finding, ...]:
    """Return the findings about one port."""
    if facts.unreached:
        fix = "start the broker, or correct the address and the rules of the firewall"
        return (bad("reach", f"the broker cannot be reached: {facts.unreached}", fix),)
    return (good("reach", "the broker listens"), *(check(facts, now) for check in _CHECKS))


def plain(facts: WireFacts, _now: dt.datetime) -> Finding:
    """Whether the server speaks without TLS. A man in the middle could then remove it."""
    if facts.clear:
        text = "the server speaks in clear before TLS, so TLS can be removed on the way"
        return bad("plain", text, _TLS_FIRST)
    if not facts.tls:
        return unknown("plain", "the server said nothing, in clear or with TLS", _TLS_FIRST)
    return good("plain", "nothing is sent in clear: TLS begins with the first byte")


def tls(facts: WireFacts, _now: dt.datetime) -> Finding:
    """Whether the server speaks the newest version of TLS."""
    if not facts.tls:
        text = f"the TLS handshake failed: {facts.tls_error}"
        return bad("tls", text if facts.tls_error else "the server offers no TLS", _TLS_FIRST)
    if facts.tls != "TLSv1.3":
        return bad("tls", f"the server agreed on {facts.tls}", _TLS_NEW)
    return good("tls", "the server agrees on TLS 1.3")


def trust(facts: WireFacts, _now: dt.datetime) -> Finding:
    """Whether the certificate is from the authority, and for this address."""
    if not facts.tls:
        return unknown("trust", "no certificate was seen", _TLS_FIRST)
    if facts.untrusted:
        fix = (
            "name the authority's certificate as `ca`, and the address in the server's certificate"
        )
        return bad("trust", f"the certificate is not trusted: {facts.untrusted}", fix)
    return good("trust", "the certificate is trusted, and is for this address")


def validity(facts: WireFacts, now: dt.datetime) -> Finding:
    """How long the server's certificate is valid."""
    if facts.valid_until is None:
        return unknown("certificate", "no certificate was seen", _TLS_FIRST)
    fix = "issue another certificate for the server, and reload the server"
    return days_left("certificate", "the server's certificate", facts.valid_until, now, fix)


def version(facts: WireFacts, _now: dt.datetime) -> Finding:
    """Whether the server has the fixes of the published advisories."""
    if not facts.info:
        return _silent("version")
    try:
        check_version(facts.info.get("version"))
    except Unfit:
        text = "the server has known vulnerabilities, or reports no valid version"
        return bad("version", text, f"upgrade the server: {LEAST} is needed")
    return good("version", f"the server is {facts.info['version']}")


def payload(facts: WireFacts, _now: dt.datetime) -> Finding:
    """Whether our largest messages pass."""
    if not facts.info:
        return _silent("max-payload")
    allowed = facts.info.get("max_payload")
    if not isinstance(allowed, int) or allowed < _PAYLOAD:
        text = f"the server does not take messages of {_PAYLOAD} bytes"
        return bad("max-payload", text, "set `max_payload: 1MB` in the server's configuration")
    return good("max-payload", f"the server takes messages of {allowed} bytes")


def _silent(check: str) -> Finding:
    text = "the server did not say it"
    return unknown(check, text, "correct what the checks of TLS report, then check again")


_CHECKS: Final[tuple[Callable[[WireFacts, dt.datetime], Finding], ...]] = (
    plain,
    tls,
    trust,
    validity,
    version,
    payload,
)
