"""The table of rights: what is true of every entry. An integration test asks a server."""

import pytest
from kcm_broker import rights as table
from kcm_broker import server_subjects
from kcm_broker.roles import INSTANCE_ROLES, NAME, Account, Rights, Role, inbox_prefix
from kcm_runtime.audit import stream_size
from kcm_schemas import data_subjects, subjects
from kcm_schemas.codes import Code, KcmError

from tests.broker_expectations import allows

PLACES = sorted(table.TABLE)
ID = bytes(16)


def made(role, account, instance="1"):
    return table.rights(role, account, "eu", f"{role}-{instance}" if role in INSTANCE_ROLES else "")


@pytest.mark.parametrize(("role", "account"), PLACES)
def test_no_entry_gives_a_power_over_streams_or_servers(role, account):
    rights = made(role, account)
    for entry in rights.publish:
        for word in ("MSG.NEXT", "DIRECT", "DELETE", "SNAPSHOT", "RESTORE", "DURABLE", "$JS.ACK"):
            assert word not in entry or entry == "$JS.API.STREAM.DELETE.KCM_ROOM"
        assert not entry.startswith(("$JS.>", "$JS.*", ">", "*", "$SYS.>"))
        assert role is Role.PUSHER or not entry.startswith("$SYS")
        assert " " not in entry
    assert ">" not in rights.subscribe


@pytest.mark.parametrize(("role", "account"), PLACES)
def test_a_template_has_no_allowed_responses_and_no_open_list(role, account):
    template = made(role, account).template()
    assert set(template) == {"pub", "sub", "subs", "data", "payload", "allowed_connection_types"}
    assert template["pub"]["allow"]
    assert template["sub"]["allow"]
    assert template["allowed_connection_types"] in (["STANDARD"], ["LEAFNODE"])


def test_an_empty_list_denies_everything():
    template = Rights((), ()).template()
    assert template["pub"] == template["sub"] == {"deny": [">"]}


@pytest.mark.parametrize(("role", "account"), PLACES)
def test_services_are_literal_and_no_list_has_queues_and_templates(role, account):
    rights = made(role, account)
    text = " ".join((*rights.publish, *rights.subscribe))
    assert role not in INSTANCE_ROLES or "{{" not in text
    assert "{{" not in " ".join(rights.subscribe) or not any(" " in s for s in rights.subscribe)
    assert (NAME in text) == (role is Role.EMBEDDED and account is Account.REGION)


@pytest.mark.parametrize(("role", "account"), [one for one in PLACES if one[0] in INSTANCE_ROLES])
def test_an_instance_has_nothing_of_another_one(role, account):
    mine, other = made(role, account), made(role, account, "2")
    own = [entry for entry in (*mine.publish, *mine.subscribe) if f"{role}-1" in entry]
    strange = (*other.publish, *other.subscribe)
    lists = [entry.partition(" ")[0].replace("*", "x").replace(">", "x") for entry in own]
    read_by_cores = {f"_INBOX.core.{role}-1.x", "kcm.v1.eu.admin.x.x.core-1"}
    assert not [one for one in lists if one not in read_by_cores and allows(strange, one)]


@pytest.mark.parametrize(
    ("region", "instance"),
    [("", "core-1"), ("*", "core-1"), ("ctl", "core-1"), ("eu.>", "core-1"), ("EU", "core-1")]
    + [("eu", name) for name in ("", "*", ">", "a.b", "Core", "core 1", "{{name()}}", "é")],
)
def test_names_that_would_widen_the_rights_are_refused(region, instance):
    with pytest.raises(KcmError) as caught:
        table.rights(Role.CORE, Account.REGION, region, instance)
    assert caught.value.code is Code.MALFORMED


def test_no_gateway_has_the_name_of_a_verb():
    for name in ("encrypt", "decrypt"):
        with pytest.raises(KcmError):
            table.rights(Role.GATEWAY, Account.REGION, "eu", name)
        table.rights(Role.CORE, Account.REGION, "eu", name)


def test_only_the_places_of_the_table_have_rights():
    for role in Role:
        for account in Account:
            if (role, account) not in table.TABLE:
                with pytest.raises(KcmError):
                    made(role, account)
    with pytest.raises(KcmError):
        table.rights(Role.OPERATOR, Account.REGION, "eu", "core-1")


CORE = [
    subjects.control_hold("eu", "tenant", ID),
    subjects.control_lifts("eu", "operator", "us", "ann", 7),
    subjects.control_lease("eu", "core-1", ID),
    subjects.control_peer_lease("eu", "us"),
    subjects.control_key_use("eu", "link", ID),
    subjects.control_trim("eu"),
    subjects.control_roster("eu"),
    subjects.control_endorsements("eu", "ann", 3),
    subjects.audit("eu", "core-1"),
    subjects.registry_question("eu"),
    subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", "acme"),
    subjects.bucket_subject(subjects.RESULTS_BUCKET, "result", "aa"),
]


def test_the_products_own_subjects_are_in_the_table():
    """As the functions of `kcm_schemas` build them."""
    core, gateway = made(Role.CORE, Account.REGION), made(Role.GATEWAY, Account.REGION)
    assert all(allows(core.publish, subject) for subject in CORE)
    control = made(Role.CORE, Account.CONTROL)
    assert allows(control.publish, subjects.broadcast_hold("eu", "tenant", ID))
    assert allows(control.publish, subjects.receipt("eu", ID))
    assert allows(control.publish, subjects.pull("us", "eu"))
    assert allows(control.subscribe, f"{subjects.pulls('eu')} core-eu")
    keys = subjects.bucket_subject(subjects.KEYS_BUCKET, "tenant", "acme")
    assert allows(made(Role.CORE, Account.VAULT).publish, keys)
    assert not allows(core.publish, keys)
    for verb in ("key", "open"):
        assert allows(gateway.publish, data_subjects.core_session("eu", "core-2", verb))
    for operation in ("wrap", "unwrap"):
        subject = data_subjects.core("eu", "core-1", operation, "acme", "mail")
        assert allows(gateway.publish, subject)
        assert allows(core.subscribe, subject)
    auditor = made(Role.AUDITOR, Account.REGION)
    assert allows(auditor.publish, subjects.control_head("eu", "auditor-1"))
    assert allows(auditor.subscribe, f"{subjects.auditor_all('eu')} auditor")
    operator = made(Role.OPERATOR, Account.REGION)
    assert allows(operator.publish, subjects.admin("eu", "hold", "put"))
    assert allows(operator.publish, subjects.admin_at("eu", "hold", "put", "core-1"))
    assert allows(operator.publish, subjects.auditor("eu", "status"))
    application = made(Role.APPLICATION, Account.REGION)
    assert allows(application.publish, data_subjects.gateway_roster("eu"))
    assert allows(application.publish, data_subjects.gateway_session("eu", "gateway-1", "open"))


def test_the_probe_of_provisioning_has_the_name_that_it_has_in_the_runtime():
    assert server_subjects.ROOM == stream_size._PROBE  # noqa: SLF001 - the runtime has no public name


def test_an_inbox_prefix_is_below_the_subscribed_subject():
    own = inbox_prefix(Role.CORE, "core-1")
    assert allows(made(Role.CORE, Account.REGION).subscribe, f"{own}.aa.bb")
