"""The table of rights at a real server with the generated configuration: operators, TLS first."""

import re

import pytest
from kcm_broker import rights as table
from kcm_broker.roles import GRANT, GRANT_VERBS, INSTANCE_ROLES, NAME, SUBJECT, Account, Role

from tests import broker_expectations as expected
from tests import broker_subjects as tried_subjects
from tests.integration import broker_rig as rig
from tests.integration.broker_wire import wire

PLACES = sorted(key for key in expected.EXPECTED if key[0] != "leaf")


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return rig.Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def realm():
    return rig.region_realm()


@pytest.fixture(scope="module")
def server(tmp_path_factory, realm, ca):
    one = rig.start_region(tmp_path_factory.mktemp("eu"), realm, ca)
    yield one
    one.stop()


def grants_of(role):
    if role == "embedded":
        return expected.EMBEDDED_GRANTS
    return expected.GRANTS if role in ("application", "plain") else ()


def instance_of(role):
    return f"{role}-1" if Role(role) in INSTANCE_ROLES else ""


def filled(entries, role, own):
    """The entries of a template, for one user."""
    found = set()
    for entry in entries:
        mine = entry.replace(SUBJECT, own).replace(NAME, "someone")
        found |= {mine.replace(GRANT, one) for one in grants_of(role)} or {mine}
    return found


def written(text, role, own):
    """The expectation, for one user."""
    found = set()
    for line in expected.lines(text):
        mine = line.replace(".U.", f".{own}.")
        if role == "embedded":
            mine = mine.replace("NAME", "someone")
        found |= {mine.replace("GRANT", one) for one in grants_of(role)} or {mine}
    return found


def sample(entry):
    """A subject that the entry allows, with its queue group."""
    subject, _, queue = entry.partition(" ")
    plain = subject.replace("*", "zz").replace(">", "yy.xx")
    return f"{plain} {queue}".rstrip()


def cells(own):
    """What is tried: the fixed lists, and samples of all entries of all roles, own and foreign."""
    published, subscribed = set(tried_subjects.PUBLISHED), set(tried_subjects.SUBSCRIBED)
    for role, account in table.TABLE:
        for instance in (f"{role}-1", f"{role}-2") if role in INSTANCE_ROLES else ("",):
            made = table.rights(role, account, "eu", instance)
            sent = filled(made.publish, role.value, own)
            heard = filled(made.subscribe, role.value, own)
            published |= {sample(entry).partition(" ")[0] for entry in sent | heard}
            broader = {re.sub(r"\*(?= |$)", ">", entry) for entry in heard}
            subscribed |= sent | heard | broader | {sample(entry) for entry in sent | heard}
    return sorted(published), sorted({one.replace(".U.", f".{own}.") for one in subscribed})


DENIED = re.compile(
    r"permissions violation for (publish|subscription) to"
    r" \"([^\"]+)\"(?: using queue \"([^\"]+)\")?",
    re.IGNORECASE,
)


async def denied(wire, published, subscribed):
    """Try everything over one connection, and return what the server refused."""
    wire.send(*(f"PUB {subject} 0\r\n" for subject in published))
    wire.send(*(f"SUB {line} {sid}" for sid, line in enumerate(subscribed, 1)))
    found = {"publish": set(), "subscription": set()}
    for line in await wire.until_pong():
        match = DENIED.search(line)
        if line.startswith("-ERR"):
            assert match, line
            kind, subject, queue = match.groups()
            found[kind.lower()].add(f"{subject} {queue or ''}".rstrip())
    return found["publish"], found["subscription"]


@pytest.mark.parametrize(("role", "account"), PLACES)
async def test_every_cell_is_as_the_table_and_the_expectation_say(server, realm, ca, role, account):
    scope = rig.scope(role, account, instance_of(role))
    made = realm.user(scope, grants=grants_of(role))
    own = made.key.public
    published, subscribed = cells(own)
    assert len(published) > 250
    assert len(subscribed) > 400
    async with wire(server, ca, made) as line:
        refused = await denied(line, published, subscribed)
    made = table.rights(Role(role), Account(account), "eu", instance_of(role))
    text = expected.EXPECTED[role, account]
    for kind, tried, entries, said, no in (
        ("publish", published, made.publish, text[0], refused[0]),
        ("subscribe", subscribed, made.subscribe, text[1], refused[1]),
    ):
        by_table, by_hand = filled(entries, role, own), written(said, role, own)
        assert by_table == by_hand, kind
        wrong = [
            (kind, line, "allowed" if line not in no else "denied")
            for line in tried
            if expected.allows(by_hand, line) != (line not in no)
        ]
        assert not wrong
        assert no <= set(tried)
        broader = {
            line
            for line in tried
            if kind == "subscribe" and line not in no and "$SRV" not in line
            if not expected.allows(by_hand, line, strictly=True)
        }
        assert broader <= expected.BROADER.get(role, set())


def test_the_link_has_the_expected_rights():
    """Not tried here: `test_broker_links` uses it."""
    made = table.rights(Role.LEAF, Account.BACKBONE, "eu")
    for entries, text in zip(
        (made.publish, made.subscribe), expected.EXPECTED["leaf", "backbone"], strict=True
    ):
        assert set(entries) == expected.lines(text)
    assert made.connection == "LEAFNODE"


def test_the_expectation_has_every_place_of_the_table():
    assert {(role.value, account.value) for role, account in table.TABLE} == set(expected.EXPECTED)
    assert set(GRANT_VERBS) == {Role.APPLICATION, Role.PLAIN, Role.EMBEDDED}


@pytest.mark.parametrize("role", ["plain", "application", "embedded"])
async def test_without_a_grant_nothing_of_a_tenant_is_allowed(server, realm, ca, role):
    """The server drops the entry of a tag that a user lacks, and an empty list denies."""
    made = realm.user(rig.scope(role, "region"))
    published, _ = cells(made.key.public)
    async with wire(server, ca, made) as line:
        refused, _ = await denied(line, published, [])
    kept = set(published) - refused
    assert not [one for one in kept if ".acme" in one or "KCM_AUDIT" in one]
    assert role != "plain" or not kept
