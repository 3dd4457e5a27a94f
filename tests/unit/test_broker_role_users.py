"""The users of a broker by role: what they may do, as a server's configuration has it."""

from __future__ import annotations

import re

import pytest
from kcm_broker.__main__ import main
from kcm_broker.role_users import USERS, inbox, user_rights
from kcm_schemas import data_subjects, subjects
from kcm_schemas.codes import KcmError

from tests import broker_expectations


def covers(entries, subject):
    patterns = (entry.partition(" ")[0] for entry in entries)
    return any(broker_expectations.covers(pattern, subject) for pattern in patterns)


CORE = data_subjects.core("eu", "core-1", "unwrap", "acme", "crm")
GATEWAY = data_subjects.gateway_at("eu", "gateway-1", "decrypt", "acme", "crm")
CARRIED = data_subjects.gateway_at("eu", "gateway-1", "session", "core-1", "key")
HOLD = subjects.control_hold("eu", "tenant", bytes(16))
KEYS = "$KV.kcm-keys.root.acme"
ADMIN = subjects.admin_at("eu", "link", "put", "core-1")
DELETE = "$JS.API.STREAM.DELETE.KCM_CONTROL"
MAY = {
    "app": {GATEWAY, CARRIED},
    "operator": {ADMIN},
    "gateway": {CORE},
    "core": {HOLD, KEYS},
    "auditor": set(),
    "provisioner": set(),
}


@pytest.mark.parametrize("user", MAY)
def test_an_application_reaches_only_gateways_and_each_role_only_what_is_its_own(user):
    rights = user_rights("eu", user)
    every = {CORE, GATEWAY, CARRIED, HOLD, KEYS, ADMIN, DELETE}
    assert {one for one in every if covers(rights.publish, one)} == MAY[user]


@pytest.mark.parametrize("user", USERS)
def test_no_list_has_everything_or_what_only_an_operators_account_can_have(user):
    rights = user_rights("eu", user)
    for entry in (*rights.publish, *rights.subscribe):
        assert entry not in (">", "*", "_INBOX.>", "$JS.API.>", "$JS.>", "kcm.>")
        assert "{" not in entry
        assert "any-instance" not in entry
        # By a reply subject, an asker for the next message can delete a stream of the account.
        assert "MSG.NEXT" not in entry
        assert "$JS.ACK" not in entry
    assert any(entry.startswith("_INBOX.") for entry in rights.subscribe) or "control" in user


@pytest.mark.parametrize("user", USERS)
def test_each_user_hears_the_replies_to_its_inbox_and_no_others(user):
    rights = user_rights("eu", user)
    heard = [entry for entry in rights.subscribe if entry.startswith("_INBOX.")]
    if heard:
        assert covers(heard, inbox(user, "one") + ".abc.1")
    for other in USERS:
        same = inbox(other, "x") == inbox(user, "x")
        assert covers(heard, inbox(other, "one") + ".abc") <= (same or user == "app")


def test_another_user_has_no_rights():
    with pytest.raises(KcmError):
        user_rights("eu", "root")


def test_the_file_has_every_user_with_a_hash_of_its_own(capsys):
    assert main(["users", "eu-de"]) == 0
    text = capsys.readouterr().out
    assert sorted(re.findall(r"user: ([a-z-]+)", text)) == sorted(USERS)
    hashes = re.findall(r"password: (\$KCM_[A-Z_]+_HASH)", text)
    assert len(set(hashes)) == len(USERS)


@pytest.mark.parametrize("region", ["ctl", "EU", "eu.de", "*", ""])
def test_a_name_that_is_no_region_is_refused(capsys, region):
    assert main(["users", region]) == 2
    assert capsys.readouterr().out == ""
