"""The search for secrets of sessions: what it knows, and that it fails where it must."""

from __future__ import annotations

import os

import pytest
from kcm_keymem.arena import Arena
from kcm_schemas.roster import Role
from kcm_schemas.session import SessionKey, Ticket
from kcm_sealing.hpke import SECRET_SIZE, SUITE_NAME, HpkePrivate, HpkePublic
from kcm_sealing.session import TicketInfo, open_session_as_caller

from tests.security import hpke_keys
from tests.security.hpke_keys import NotFound
from tests.security.looking import Leak, Seen
from tests.security.memscan_sessions import (
    CORES,
    GATEWAYS,
    OWN,
    PAIRS,
    found_at_ends,
    nowhere,
    only_at_ends,
)
from tests.security.true_sessions import KEYS, Private

GATEWAY, OTHER = GATEWAYS
CORE = CORES[0]


@pytest.fixture
def secret() -> bytes:
    """The secret form of a private key."""
    return os.urandom(SECRET_SIZE)


@pytest.fixture
def public(secret: bytes) -> bytes:
    return HpkePrivate(memoryview(secret)).public_bytes


def memory_with(*parts: bytes) -> bytes:
    return b"".join(os.urandom(4096) + part for part in parts) + os.urandom(64)


def test_a_private_key_is_found_by_its_public_one(secret, public) -> None:
    chunks = [os.urandom(4096), memory_with(secret[64:]), memory_with(secret[:32])]
    found = hpke_keys.found(chunks, public)
    assert (found["seed"], found["scalar"]) == (secret[:32], secret[64:])


def test_half_of_a_private_key_is_not_enough(secret, public) -> None:
    for half in (secret[:32], secret[64:]):
        with pytest.raises(NotFound):
            hpke_keys.found([memory_with(half)], public)


def test_the_secrets_of_a_session_are_computed_from_its_ticket(secret, public) -> None:
    fields = {
        "key_id": b"k" * 16,
        "caller": "app",
        "incarnation": b"i" * 16,
        "session_id": b"s" * 16,
        "issued_ms": 1,
        "expiry_ms": 2,
    }
    chosen, memory = os.urandom(32), Arena()

    def fill(view: memoryview) -> None:
        view[:] = chosen

    _, ciphertext, signature = open_session_as_caller(
        TicketInfo(region="eu", callee=GATEWAY, **fields),
        HpkePublic.from_bytes(public),
        lambda _: bytes(64),
        memory,
        fill,
    )
    key = SessionKey(
        instance=GATEWAY,
        role=Role.GATEWAY,
        region="eu",
        incarnation=bytes(16),
        key_id=fields["key_id"],
        suite=SUITE_NAME,
        public=public,
        issued_ms=1,
        valid_ms=1,
    )
    ticket = Ticket(v=1, ciphertext=ciphertext, signature=signature, **fields)
    secrets = Private(key, hpke_keys.expanded(secret[:32], secret[64:])).secrets(ticket)
    assert secrets["secret"] == chosen
    with memory.use() as view:
        derived = view[:64].tobytes() + view[96:128].tobytes()
    assert b"".join(secrets[name] for name in KEYS) == derived


def seen(process: str, *names: str) -> list[Seen]:
    return [Seen(process, process.partition("-")[0], frozenset(names))]


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_of_a_session_belongs_to_its_two_ends(kind) -> None:
    name = f"{CORE}/{GATEWAY}/{kind}/7"
    only_at_ends(seen(CORE, name) + seen(GATEWAY, name))
    for other in (OTHER, CORES[1], "eu-de", "backbone", "auditor-eu-de-1", f"{CORE}'s unsealer"):
        with pytest.raises(Leak, match=f"{other} must not have {name}"):
            only_at_ends(seen(other, name))


@pytest.mark.parametrize("kind", ["secret", "hpke-secret", "hpke-key"])
def test_what_a_session_begins_with_is_a_leak_at_its_ends_too(kind) -> None:
    for end in (CORE, GATEWAY):
        with pytest.raises(Leak, match=kind):
            only_at_ends(seen(end, f"{CORE}/{GATEWAY}/{kind}/0"))


def test_a_private_session_key_belongs_to_its_instance() -> None:
    only_at_ends(seen(GATEWAY, f"{GATEWAY}/own/seed/0"))
    with pytest.raises(Leak, match=f"{OTHER} must not have {GATEWAY}/own/seed/0"):
        only_at_ends(seen(OTHER, f"{GATEWAY}/own/seed/0"))


@pytest.mark.parametrize("name", ["root", "operator", "app"])
def test_an_identity_of_no_instance_is_a_leak_everywhere(name) -> None:
    for one in (CORE, GATEWAY, "auditor-eu-de-1"):
        with pytest.raises(Leak, match=name):
            only_at_ends(seen(one, f"{name}/own/identity/0"))


def test_what_has_ended_is_a_leak_at_its_ends() -> None:
    name = f"{GATEWAY}/app/reply/3"
    nowhere(seen(GATEWAY, f"{GATEWAY}/app/reply/4"), {name})
    with pytest.raises(Leak, match=f"{GATEWAY} still has {name}"):
        nowhere(seen(GATEWAY, name), {name})


def everything() -> list[Seen]:
    names = {f"{callee}/{caller}/{kind}/0" for caller, callee in PAIRS for kind in KEYS}
    names |= {f"{one}/own/{part}/0" for one in (*GATEWAYS, *CORES) for part in OWN}
    return [Seen(one, "", frozenset(names)) for one in (*GATEWAYS, *CORES)]


def test_a_search_that_misses_a_key_fails() -> None:
    found_at_ends(everything(), PAIRS)
    for name in (f"{CORE}/{GATEWAY}/ask/0", f"{GATEWAY}/own/vector/0"):
        less = [Seen(one.process, "", one.names - {name}) for one in everything()]
        with pytest.raises(Leak, match="does not find"):
            found_at_ends(less, PAIRS)
