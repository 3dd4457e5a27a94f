"""``kcm doctor``: what is read of an instance's configuration, and of a context."""

import os
from pathlib import Path

import pytest
from kcm_broker.roles import Account, Role
from kcm_deployment.doctor.configuration import read_configuration
from kcm_deployment.doctor.context_plan import check_roster, plan_of
from kcm_deployment.doctor.plan import Kind
from kcm_runtime.config import ConfigError
from kcm_schemas import limits

from tests.fakes.client import NOW_MS, FakeSystem

CORE = """
instance = "core-1"
region = "eu"
roster = "/etc/kcm/roster"
identity = "/etc/kcm/identity"
state_dir = "/var/lib/kcm"
ready_file = "/run/kcm/ready"
key_store = "/var/lib/kcm-keys"
[secrets]
seal_key = "/etc/kcm/seal-key"
[unsealer]
socket = "/run/kcm/unsealer.sock"
user = "kcm-unsealer"
[region_bus]
url = "tls://one:4222"
also = ["tls://two:4222", "tls://three:4222"]
credentials = "/etc/kcm/region.creds"
ca = "/etc/kcm/ca.pem"
inbox = "_INBOX.core.core-1"
[control_bus]
url = "tls://one:4222"
user = "core-control"
password_file = "/etc/kcm/control"
inbox = "_INBOX.core.core-1"
"""
AUDITOR = """
instance = "auditor-1"
region = "eu"
[auditor]
journal = "/var/lib/journal"
[[regions]]
region = "us"
url = "tls://us"
user = "auditor"
password_file = "/etc/kcm/us"
inbox = "_INBOX.auditor.auditor-1"
[[regions]]
region = "jp"
url = "tls://jp"
user = "auditor"
password_file = "/etc/kcm/jp"
inbox = "_INBOX.auditor.auditor-1"
"""
CONTROL, AUDIT, KEYS, REGISTRY, RESULTS = (
    "KCM_CONTROL", "KCM_AUDIT", "KV_kcm-keys", "KV_kcm-registry", "KV_kcm-results",
)  # fmt: skip


def read(tmp_path, text):
    path = tmp_path / "one.toml"
    path.write_text(text)
    return read_configuration(path)


def test_the_files_of_a_core_are_found_by_their_keys(tmp_path):
    kinds = {(one.key, str(one.path)): one.kind for one in read(tmp_path, CORE).files}
    assert kinds == {
        ("configuration", str(tmp_path / "one.toml")): Kind.PUBLIC,
        ("roster", "/etc/kcm/roster"): Kind.PUBLIC,
        ("identity", "/etc/kcm/identity"): Kind.SECRET,
        ("state_dir", "/var/lib/kcm"): Kind.STATE,
        ("key_store", "/var/lib/kcm-keys"): Kind.STATE,
        ("seal_key", "/etc/kcm/seal-key"): Kind.SECRET,
        ("credentials", "/etc/kcm/region.creds"): Kind.CREDENTIALS,
        ("ca", "/etc/kcm/ca.pem"): Kind.CERTIFICATE,
        ("password_file", "/etc/kcm/control"): Kind.SECRET,
    }


def test_other_values_are_files_if_they_exist(tmp_path):
    other, key = tmp_path / "module.so", tmp_path / "none"
    other.touch()
    text = f'[more]\nmodule = "{other}"\nabsent = "{key}"\nvendor_key = "{key}"\nnumber = 5\n'
    found = {one.key: one.kind for one in read(tmp_path, text).files}
    assert found == {
        "configuration": Kind.PUBLIC,
        "module": Kind.PUBLIC,
        "vendor_key": Kind.SECRET,
    }


def test_the_addresses_of_a_core_have_accounts_and_streams(tmp_path):
    plan = read(tmp_path, CORE)
    region, control = plan.addresses
    assert plan.name == "core-1"
    assert (region.name, region.account, region.role) == ("region_bus", Account.REGION, Role.CORE)
    assert region.bus.urls == ("tls://one:4222", "tls://two:4222", "tls://three:4222")
    assert set(region.streams) == {CONTROL, AUDIT, REGISTRY, RESULTS}
    assert (control.account, control.streams) == (Account.CONTROL, ())


def test_the_stream_of_keys_is_in_its_own_account_alone(tmp_path):
    more = CORE.partition("[region_bus]")[2].partition("[control_bus]")[0]
    plan = read(tmp_path, f"{CORE}[vault_bus]{more}")
    streams = {one.name: set(one.streams) for one in plan.addresses}
    assert streams["vault_bus"] == {KEYS}
    assert KEYS not in streams["region_bus"]


def test_each_region_of_an_auditor_is_an_address(tmp_path):
    plan = read(tmp_path, AUDITOR)
    assert [(one.name, one.region) for one in plan.addresses] == [
        ("regions us", "us"),
        ("regions jp", "jp"),
    ]
    assert {one.streams for one in plan.addresses} == {(AUDIT,)}


@pytest.mark.parametrize(
    ("role", "streams"),
    [
        ("gateway", {CONTROL, REGISTRY}),
        ("provisioner", {CONTROL, AUDIT, REGISTRY, RESULTS}),
        ("operator", set()),
        ("unheard", set()),
    ],
)
def test_the_streams_are_those_of_the_role(tmp_path, role, streams):
    text = f"""
    region = "eu"
    [region_bus]
    url = "tls://one"
    user = "x"
    password_file = "/x"
    inbox = "_INBOX.{role}.one"
    """
    (address,) = read(tmp_path, text).addresses
    assert set(address.streams) == streams


def test_fields_of_a_later_version_do_not_keep_an_address_from_being_checked(tmp_path):
    text = CORE.replace("[control_bus]", "[control_bus]\nnew_field = 5")
    assert len(read(tmp_path, text).addresses) == 2


def test_an_address_that_lacks_something_is_a_finding(tmp_path):
    text = '[region_bus]\nurl = "tls://one"\nuser = "SECRET"\n[control_bus]\nurl = "tls://one"\n'
    found = read(tmp_path, text).findings
    assert [(one.check, one.state) for one in found] == [
        ("region_bus", "fail"),
        ("control_bus", "fail"),
    ]
    assert all(one.fix for one in found)
    assert "SECRET" not in str(found)


def test_an_address_without_an_inbox_is_a_warning(tmp_path):
    plan = read(tmp_path, CORE.replace('inbox = "_INBOX.core.core-1"\n[control', "[control"))
    assert ("region_bus-inbox", "warn") in {(one.check, one.state) for one in plan.findings}


def test_a_file_without_a_broker_fails(tmp_path):
    (one,) = read(tmp_path, 'region = "eu"').findings
    assert one.state == "fail"


@pytest.mark.parametrize("content", [b"[", b"\xff", None])
def test_what_is_no_configuration_is_refused(tmp_path, content):
    path = tmp_path / "one.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        read_configuration(path)


@pytest.fixture
def system(tmp_path):
    return FakeSystem(tmp_path)


def states(findings):
    return {one.check: one.state for one in findings}


def test_a_context_has_its_files_and_both_logins_of_each_region(system):
    plan = plan_of(system.context(), NOW_MS)
    kinds = {one.path.name: one.kind for one in plan.files}
    assert kinds == {
        "context.toml": Kind.PUBLIC,
        "roster": Kind.PUBLIC,
        **{
            f"{region}.{user}.creds": Kind.CREDENTIALS
            for region in ("eu", "us")
            for user in ("app", "operator")
        },
        "alice.key": Kind.SECRET,
    }
    names = [one.name for one in plan.addresses]
    assert names == ["eu app", "eu operator", "us app", "us operator"]
    assert {one.role for one in plan.addresses} == {Role.APPLICATION, Role.OPERATOR}
    assert states(plan.findings) == {"roster-trust": "ok", "roster-time": "ok", "operator": "ok"}


def test_a_context_without_an_application_has_the_operators_logins_only(system):
    text = system.context_file.read_text()
    lines = [one for one in text.splitlines() if not one.startswith("app_credentials")]
    system.context_file.write_text("\n".join(lines))
    plan = plan_of(system.context(), NOW_MS)
    assert [one.name for one in plan.addresses] == ["eu operator", "us operator"]


def test_the_clock_may_be_late_by_the_skew(system):
    context = system.context()
    for late, state in ((limits.SKEW_MS, "ok"), (limits.SKEW_MS + 1, "fail")):
        assert states(check_roster(context, NOW_MS - late))["roster-time"] == state


def test_a_roster_of_another_root_is_not_trusted(system, tmp_path):
    (tmp_path / "other").mkdir()
    other = FakeSystem(tmp_path / "other")
    raw = (other.directory / "roster").read_bytes()
    (system.directory / "roster").write_bytes(raw)
    (one,) = check_roster(system.context(), NOW_MS)
    assert (one.check, one.state) == ("roster-trust", "fail")
    assert "root_public" in one.fix


def test_a_roster_that_is_missing_is_unknown(system):
    (system.directory / "roster").unlink()
    assert states(check_roster(system.context(), NOW_MS)) == {"roster-trust": "unknown"}


def test_an_operator_needs_an_entry_on_the_roster_and_its_key(system):
    changed = system.context_file.read_text().replace('"alice"', '"bob"')
    system.context_file.write_text(changed)
    assert states(check_roster(system.context(), NOW_MS))["operator"] == "fail"
    system.write_context()
    key = system.directory / "alice.key"
    key.write_bytes(os.urandom(32))
    assert states(check_roster(system.context(), NOW_MS))["operator"] == "fail"
    key.unlink()
    assert states(check_roster(system.context(), NOW_MS))["operator"] == "unknown"


def test_checking_a_roster_stores_nothing(system):
    before = sorted(Path(system.directory).rglob("*"))
    check_roster(system.context(), NOW_MS)
    assert sorted(Path(system.directory).rglob("*")) == before
