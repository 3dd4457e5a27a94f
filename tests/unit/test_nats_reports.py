"""What the log says when a broker refuses something and keeps the connection."""

from __future__ import annotations

import ssl

import pytest
from kcm_runtime.nats.connect_failures import Failure, Reason, failure_of, report
from nats import errors

REFUSED = 'nats: permissions violation for {} to "{}"'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (REFUSED.format("subscription", "_INBOX.abc.*"), ["_INBOX.abc.*", "`inbox`"]),
        (REFUSED.format("publish", "kcm.eu.x"), ["kcm.eu.x", "permissions"]),
    ],
)
def test_a_refused_subject_is_shown_with_what_to_look_at(text, parts):
    found = report(errors.Error(text))
    assert all(part in found for part in parts)
    assert ("`inbox`" in found) == ("_INBOX" in text)


def test_the_brokers_words_are_quoted_and_cut():
    found = report(errors.Error(REFUSED.format("publish", "a\nb" + "c" * 10_000)))
    assert "\n" not in found
    assert len(found) < 400


def test_of_other_errors_the_log_has_the_type_only():
    assert report(errors.SlowConsumerError("s", "r", 1, None)) == "SlowConsumerError"
    assert report(errors.Error("nats: the broker's words")) == "Error"


def tls_error(reason):
    error = ssl.SSLError(1, "the library's text")
    error.reason = reason
    return error


def test_the_end_of_a_refused_connection_does_not_hide_the_refusal():
    """A later failure without a reason leaves the earlier one."""
    found = failure_of(tls_error("APPLICATION_DATA_AFTER_CLOSE_NOTIFY"))
    assert found == Failure(Reason.OTHER)
    found = failure_of(tls_error("TLSV1_ALERT_PROTOCOL_VERSION"))
    assert found == Failure(Reason.TLS, "tlsv1 alert protocol version")
