"""``kcm doctor``: what is said about a broker, by facts that are handed in."""

import datetime as dt

import pytest
from kcm_broker import rights as table
from kcm_broker.roles import INSTANCE_ROLES, Role
from kcm_deployment.doctor.checks import login as logins
from kcm_deployment.doctor.checks.clock import check_clock
from kcm_deployment.doctor.checks.permissions import Answer, Verb, attempts, judge
from kcm_deployment.doctor.checks.wire import check_wire
from kcm_deployment.doctor.wire import Place, WireFacts
from kcm_runtime.nats.connect_failures import Failure, Reason
from kcm_schemas import limits

NOW = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
INFO = {"version": "2.15.1", "max_payload": 1 << 20}
GOOD = {"tls": "TLSv1.3", "valid_until": NOW + dt.timedelta(days=90), "info": INFO}


def wire(**facts):
    return {one.check: one for one in check_wire(WireFacts(**(GOOD | facts)), NOW)}


def test_a_good_port_passes_every_check():
    assert {one.state for one in wire().values()} == {"ok"}
    assert set(wire()) == {
        "reach", "plain", "tls", "trust", "certificate", "version", "max-payload",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "check", "state"),
    [
        ({"clear": True}, "plain", "fail"),
        ({"tls": "TLSv1.2"}, "tls", "fail"),
        ({"untrusted": "self-signed certificate"}, "trust", "fail"),
        ({"valid_until": NOW}, "certificate", "fail"),
        ({"valid_until": NOW + dt.timedelta(days=29)}, "certificate", "warn"),
        ({"info": INFO | {"version": "2.10.0"}}, "version", "fail"),
        ({"info": INFO | {"version": 7}}, "version", "fail"),
        ({"info": INFO | {"max_payload": 1 << 16}}, "max-payload", "fail"),
        ({"info": INFO | {"max_payload": "big"}}, "max-payload", "fail"),
    ],
)
def test_one_fact_changes_one_finding(facts, check, state):
    found = wire(**facts)
    one = found.pop(check)
    assert one.state == state
    assert one.fix
    assert {one.state for one in found.values()} == {"ok"}


def test_without_tls_there_is_no_certificate_to_judge():
    found = wire(tls="", valid_until=None, tls_error="wrong version number", info={})
    states = {name: one.state for name, one in found.items()}
    assert states.pop("reach") == "ok"
    assert states.pop("tls") == "fail"
    assert set(states.values()) == {"unknown"}
    assert all(found[name].fix for name in states)


def test_a_port_that_is_not_reached_is_one_failure():
    (one,) = check_wire(WireFacts(unreached="Connection refused"), NOW)
    assert (one.check, one.state) == ("reach", "fail")
    assert one.fix


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tls://broker:4443", "broker", 4443),
        ("nats://user:word@broker", "broker", 4222),
        ("broker", "broker", 4222),
        ("tls://[::1]:5", "::1", 5),
    ],
)
def test_a_url_is_a_host_and_a_port(url, host, port):
    place = Place.of(url, None)
    assert (place.host, place.port) == (host, port)


@pytest.mark.parametrize("url", ["", "tls://", "tls://broker:x"])
def test_a_url_without_a_host_is_refused(url):
    with pytest.raises(ValueError):
        Place.of(url, None)


def test_what_is_tried_is_a_right_of_no_role():
    """Otherwise a broker with the right permissions would fail the check."""
    for role, account in table.TABLE:
        instance = f"{role}-1" if role in INSTANCE_ROLES else ""
        made = table.rights(role, account, "eu", instance)
        refused(role, made.publish, made.subscribe)


def refused(role, publish, subscribe):
    for one in attempts(role):
        allowed = publish if one.verb is Verb.PUBLISH else subscribe
        assert not [entry for entry in allowed if covers(entry.partition(" ")[0], one.subject)]


def covers(entry, subject):
    """Whether an entry of the table allows the subject, wildcards included."""
    mine, asked = entry.split("."), subject.split(".")
    for place, token in enumerate(mine):
        if token == ">":
            return len(asked) > place
        if place >= len(asked) or (token != "*" and token != asked[place]):
            return False
    return len(mine) == len(asked)


def test_a_client_tries_the_inboxes_of_another_role():
    for role in (None, *Role):
        (one,) = [one for one in attempts(role) if one.check == "foreign-inbox"]
        assert one.subject != f"_INBOX.{role}.>"


def test_only_a_refusal_counts():
    (first, *_) = attempts(Role.CORE)
    assert judge(first, Answer.REFUSED).state == "ok"
    assert judge(first, Answer.ACCEPTED).state == "fail"
    assert judge(first, Answer.SILENT).state == "unknown"
    assert judge(first, Answer.ACCEPTED).fix


def test_a_refusal_is_of_the_subject_that_was_tried():
    by_check = {one.check: one for one in attempts(Role.CORE)}
    said = 'nats: permissions violation for publish to "$js.api.stream.delete.kcm-doctor-none"'
    assert by_check["delete-stream"].said_in(said)
    assert not by_check["ask-servers"].said_in(said)
    assert not by_check["subscribe-all"].said_in("nats: slow consumer")


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_of_a_refused_login_has_a_fix(reason):
    one = logins.rejected(Failure(reason, "SECRET"))
    assert one.state == "fail"
    assert one.fix
    assert "SECRET" not in f"{one.text}{one.fix}"


STAMP = "2027-01-01T00:00:00.123456789Z"
AT = 1_798_761_600_123


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [
        (AT, AT + 10, "ok"),
        (AT - limits.SKEW_MS - 1, AT + 10, "ok"),
        (AT + limits.SKEW_MS, AT + limits.SKEW_MS + 10, "ok"),
        (AT + limits.SKEW_MS + 1, AT + limits.SKEW_MS + 10, "fail"),
        (AT - limits.SKEW_MS - 20, AT - limits.SKEW_MS - 1, "fail"),
    ],
)
def test_the_clocks_may_differ_by_the_skew(before, after, state):
    one = check_clock(STAMP, before, after)
    assert (one.state, bool(one.fix)) == (state, state != "ok")


@pytest.mark.parametrize("stamp", [None, 5, "", "soon", "2027-01-01T00:00:00"])
def test_an_answer_without_a_time_says_nothing(stamp):
    assert check_clock(stamp, AT, AT).state == "unknown"


def test_a_time_without_a_fraction_and_with_a_zone_is_read():
    assert check_clock("2027-01-01T01:00:00+01:00", AT, AT).state == "ok"
