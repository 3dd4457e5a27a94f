"""Pushing an account: what is sent, and which answers of the nodes count."""

import json

import pytest
from kcm_broker.accounts import ScopeId, account_body
from kcm_broker.claims import account_token
from kcm_broker.resolver import OwnScope, Pusher
from kcm_broker.roles import Account, Role
from kcm_broker.server_subjects import SYSTEM_UPDATE, system_lookup
from kcm_schemas.codes import Code, KcmError

from tests.unit.broker_rig import NOW, account, operator

OPERATOR, HOME = operator(), account().public


def token_of(issued=NOW, signer=OPERATOR, home=HOME):
    return account_token(signer, home, "region", {"limits": {}}, issued)


class FakeNodes:
    """Nodes that store what they get; each one can be made to answer differently."""

    def __init__(self, count=3, stored=""):
        self.stored = dict.fromkeys((f"n{place}" for place in range(count)), stored)
        self.asked = []
        self.deaf = set()
        self.answer = {}

    async def ask(self, subject, body, answers):
        self.asked.append(subject)
        found = []
        for name in self.stored:
            if name in self.deaf:
                continue
            if subject == SYSTEM_UPDATE:
                if name not in self.answer:
                    self.stored[name] = body.decode()
                found.append(self.answer.get(name, updated(name)))
            elif self.stored[name]:
                found.append(self.stored[name].encode())
        return found[:answers]


def updated(name, **changes):
    data = {"account": HOME, "code": 200, "message": "jwt updated"} | changes
    return json.dumps({"server": {"name": name}, "data": data}).encode()


SYSTEM = OwnScope(account().public, account().public)


def pusher(nodes, count=3):
    return Pusher(nodes, {OPERATOR.public}, count, SYSTEM)


@pytest.mark.parametrize("keys", [[], [SYSTEM.key], None, {}, [{"key": SYSTEM.key}]])
async def test_a_system_account_without_the_pushers_scope_is_not_sent(keys):
    nodes = FakeNodes()
    body = {"limits": {}, "signing_keys": keys}
    token = account_token(OPERATOR, SYSTEM.account, "system", body, NOW)
    await refused(Code.FORBIDDEN, pusher(nodes).push(token))
    assert nodes.asked == []


async def test_a_system_account_with_the_pushers_scope_is_sent():
    scope = ScopeId(Role.PUSHER, Account.SYSTEM)
    body = account_body("eu", Account.SYSTEM, {scope: SYSTEM.key}, now_s=NOW)
    token = account_token(OPERATOR, SYSTEM.account, "system", body, NOW)
    nodes = FakeNodes()
    await pusher(nodes).push(token)
    assert set(nodes.stored.values()) == {token}


async def refused(code, pushing):
    with pytest.raises(KcmError) as caught:
        await pushing
    assert caught.value.code is code, caught.value
    return caught.value.detail


async def test_a_token_reaches_all_nodes_and_is_looked_up():
    nodes, token = FakeNodes(), token_of()
    pushed = await pusher(nodes).push(token)
    assert pushed.nodes == ("n0", "n1", "n2")
    assert set(nodes.stored.values()) == {token}
    assert nodes.asked == [system_lookup(HOME), SYSTEM_UPDATE, system_lookup(HOME)]


async def test_an_older_or_equally_old_token_is_not_sent():
    present = token_of(NOW)
    other = account_token(OPERATOR, HOME, "region", {"limits": {"conn": 1}}, NOW)
    for stale in (token_of(NOW - 1), other):
        nodes = FakeNodes(stored=present)
        await refused(Code.CONFLICT, pusher(nodes).push(stale))
        assert SYSTEM_UPDATE not in nodes.asked


async def test_the_same_token_is_sent_again_for_a_node_that_was_away():
    nodes = FakeNodes(stored=token_of())
    nodes.stored["n1"] = token_of(NOW - 5)
    await pusher(nodes).push(token_of())
    assert set(nodes.stored.values()) == {token_of()}


async def test_one_node_with_a_newer_token_is_enough_to_refuse():
    nodes = FakeNodes(stored=token_of(NOW))
    nodes.stored["n2"] = token_of(NOW + 9)
    await refused(Code.CONFLICT, pusher(nodes).push(token_of(NOW + 5)))
    assert SYSTEM_UPDATE not in nodes.asked


async def test_foreign_and_malformed_tokens_are_refused_before_anything_is_sent():
    nodes = FakeNodes()
    for bad, code in (
        (token_of(signer=operator()), Code.FORBIDDEN),
        ("", Code.MALFORMED),
        (token_of() + "=", Code.MALFORMED),
        ("é", Code.MALFORMED),
    ):
        await refused(code, pusher(nodes).push(bad))
    assert nodes.asked == []


async def test_what_a_foreign_operator_stored_is_replaced():
    nodes = FakeNodes(stored=token_of(NOW + 1000, signer=operator()))
    nodes.stored["n1"] = "not a token"
    nodes.stored["n2"] = token_of(NOW + 1000, home=account().public)
    token = token_of()
    assert await pusher(nodes).present(HOME) == []
    await pusher(nodes).push(token)
    assert set(nodes.stored.values()) == {token}


async def test_a_node_that_is_silent_is_reported():
    nodes = FakeNodes()
    nodes.deaf.add("n1")
    assert "2 of 3 nodes" in await refused(Code.UNAVAILABLE, pusher(nodes).push(token_of()))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"server":{"name":"n1"}}',
        b'{"server":{"name":"n1"},"data":[]}',
        b'{"server":{"name":"n1"},"error":{"code":500,"description":"no"}}',
        b'{"server":{"name":7},"data":{"code":200}}',
        updated("n1", code=500),
        updated("n1", code="200"),
    ],
)
async def test_an_answer_that_is_no_yes_is_none(answer):
    nodes = FakeNodes()
    nodes.answer["n1"] = answer
    await refused(Code.UNAVAILABLE, pusher(nodes).push(token_of()))


async def test_a_node_that_says_yes_and_stores_nothing_is_found():
    nodes = FakeNodes(stored=token_of(NOW - 5))
    nodes.answer["n1"] = updated("n1")
    text = await refused(Code.UNAVAILABLE, pusher(nodes).push(token_of()))
    assert "another token" in text


async def test_answers_of_one_node_count_once():
    nodes = FakeNodes()
    nodes.answer["n1"] = updated("n0")
    await refused(Code.UNAVAILABLE, pusher(nodes).push(token_of()))


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_broker_has_nodes(count):
    with pytest.raises(ValueError, match="nodes"):
        pusher(FakeNodes(), count)
