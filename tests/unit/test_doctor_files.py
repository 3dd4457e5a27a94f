"""``kcm doctor``: files, certificates and tokens."""

import datetime as dt
import os
from pathlib import Path

import pytest
from kcm_broker import claims
from kcm_broker.certificates import Authority
from kcm_broker.claims import User, Validity
from kcm_deployment.doctor.checks.certificates import check_certificate_file
from kcm_deployment.doctor.checks.files import FREE_LOW, FREE_MIN, check_file
from kcm_deployment.doctor.checks.tokens import check_token
from kcm_deployment.doctor.examination import check_named
from kcm_deployment.doctor.file_facts import Above, FileFacts, read_file_facts
from kcm_deployment.doctor.plan import Kind, Named
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials

from tests.unit.broker_rig import NOW, StoppedClock, account, user

PATH = Path("/etc/kcm/file")
ME = 1000
DAY_S = 86_400
SAFE = Above(Path("/etc/kcm"), 0o755, 0)


def found(kind, *, key="name", owners=(0, ME), **facts):
    made = FileFacts(PATH, **{"mode": 0o600, "owner": ME, "group": ME, "above": (SAFE,)} | facts)
    return {one.check: one for one in check_file(Named(key, PATH, kind), made, set(owners))}


@pytest.mark.parametrize(
    ("kind", "facts", "state"),
    [
        (Kind.SECRET, {}, "ok"),
        (Kind.SECRET, {"mode": 0o400}, "ok"),
        (Kind.SECRET, {"mode": 0o640}, "fail"),
        (Kind.SECRET, {"mode": 0o604}, "fail"),
        (Kind.CREDENTIALS, {"mode": 0o644}, "fail"),
        (Kind.SECRET, {"mode": 0o440, "owner": 0, "group": 0}, "ok"),
        (Kind.SECRET, {"mode": 0o444, "owner": 0, "group": 0}, "fail"),
        (Kind.SECRET, {"owner": 1001}, "fail"),
        (Kind.PUBLIC, {"owner": 1001}, "warn"),
        (Kind.PUBLIC, {"mode": 0o644}, "ok"),
        (Kind.PUBLIC, {"mode": 0o646}, "fail"),
        (Kind.PUBLIC, {"mode": 0o664}, "warn"),
        (Kind.SECRET, {"directory": True}, "fail"),
        (Kind.SECRET, {"error": "No such file", "missing": True}, "fail"),
        (Kind.SECRET, {"error": "Permission denied"}, "unknown"),
    ],
)
def test_who_may_use_a_file(kind, facts, state):
    (one,) = found(kind, **facts).values()
    assert one.state == state
    assert bool(one.fix) == (state != "ok")
    assert str(PATH) in one.text


@pytest.mark.parametrize(
    ("mode", "owner", "state"),
    [
        (0o757, 0, "fail"),
        (0o775, 0, "warn"),
        (0o1777, 0, "ok"),
        (0o755, 0, "ok"),
        (0o755, ME, "ok"),
        (0o755, 1001, "warn"),
    ],
)
def test_who_may_replace_a_file(mode, owner, state):
    above = (SAFE, Above(Path("/etc"), mode, owner))
    findings = found(Kind.SECRET, above=above)
    assert [one.state for one in findings.values()] == [state]
    assert ("name-directory" in findings) == (state != "ok")


def test_a_credential_of_a_unit_that_does_not_run_is_unknown():
    path = Path("/run/credentials/kcm-core@core-1.service/identity")
    facts = FileFacts(path, "No such file", missing=True)
    (one,) = check_file(Named("identity", path, Kind.SECRET), facts, {0})
    assert one.state == "unknown"
    assert "start the unit" in one.fix


@pytest.mark.parametrize(
    ("free", "state"), [(FREE_MIN - 1, "fail"), (FREE_LOW - 1, "warn"), (FREE_LOW, "ok")]
)
def test_a_state_directory_needs_room(free, state):
    facts = {"directory": True, "writable": True, "mode": 0o700}
    findings = found(Kind.STATE, key="state_dir", free=free, **facts)
    assert {name: one.state for name, one in findings.items()} == {
        "state_dir": "ok",
        "state_dir-room": state,
    }


def test_a_state_directory_is_a_directory_that_can_be_written():
    assert found(Kind.STATE)["name"].state == "fail"
    assert found(Kind.STATE, directory=True, mode=0o700)["name"].state == "unknown"


def test_the_facts_are_those_of_the_file_system(tmp_path):
    path = tmp_path / "one"
    path.touch(mode=0o640)
    path.chmod(0o640)
    facts = read_file_facts(path)
    assert (facts.mode, facts.owner, facts.directory) == (0o640, os.geteuid(), False)
    assert facts.above[0].path == tmp_path.resolve()
    assert facts.above[-1].path == Path("/")
    assert read_file_facts(tmp_path).directory
    assert read_file_facts(tmp_path / "none").missing
    assert read_file_facts(path / "none").missing


CLOCK = StoppedClock()
MOMENT = dt.datetime.fromtimestamp(NOW, dt.UTC)


@pytest.mark.parametrize(("later", "state"), [(0, "ok"), (61, "warn"), (89, "warn"), (91, "fail")])
def test_the_days_of_a_certificate_in_a_file(later, state):
    pem = Authority.create("kcm-ca", 90, CLOCK).certificate
    moment = MOMENT + dt.timedelta(days=later)
    one = check_certificate_file(Named("ca", PATH, Kind.CERTIFICATE), pem, moment)
    assert one.state == state
    assert bool(one.fix) == (state != "ok")


def test_a_file_that_is_no_certificate_fails():
    for content in (b"", b"x", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"):
        assert (
            check_certificate_file(Named("ca", PATH, Kind.PUBLIC), content, MOMENT).state == "fail"
        )


def token(**validity):
    signer = account()
    one = User(user().public, "someone", validity=Validity(**validity))
    return claims.user_token(signer, signer.public, one, NOW)


@pytest.mark.parametrize(
    ("validity", "state", "said"),
    [
        ({}, "ok", "no end"),
        ({"expires": NOW + 15 * DAY_S}, "ok", "15 days"),
        ({"expires": NOW + 14 * DAY_S - 1}, "warn", "13 days"),
        ({"expires": NOW}, "fail", "expired"),
        ({"not_before": NOW + 1}, "fail", "not valid yet"),
    ],
)
def test_the_end_of_a_users_token(validity, state, said):
    one = check_token("token", token(**validity), NOW)
    assert (one.state, bool(one.fix)) == (state, state != "ok")
    assert said in one.text


def test_a_token_that_was_changed_fails():
    head, body, signature = token().split(".")
    for bad in ("", "x", f"{head}.{body}", f"{head}.{body}.{signature[:-4]}AAAA"):
        assert check_token("token", bad, NOW).state == "fail"


def test_credentials_that_others_can_read_show_no_seed(tmp_path):
    made = Credentials(token(), user())
    path = tmp_path / "user.creds"
    credentials.write(path, made)
    named = Named("credentials", path, Kind.CREDENTIALS)
    mine = frozenset({os.geteuid()})
    assert {one.state for one in check_named(named, mine, NOW * 1000)} == {"ok"}
    path.chmod(0o644)
    findings = check_named(named, mine, NOW * 1000)
    assert [(one.check, one.state) for one in findings] == [
        ("credentials", "fail"),
        ("login", "fail"),
    ]
    assert made.key.seed() not in str(findings)
