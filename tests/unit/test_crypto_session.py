"""The sealed channel's sessions: lifetime, ends that agree, threads, and what is wiped."""

from __future__ import annotations

import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena, Purged
from kcm_keymem.pages import fill_random
from kcm_schemas.limits import TICKET_MAX_MS
from kcm_sealing.hpke import HpkePrivate, HpkePublic, KeyClosed
from kcm_sealing.session import (
    Session,
    TicketInfo,
    open_session_as_callee,
    open_session_as_caller,
    sealed_size,
)

NOW = 1_700_000_000_000
INFO = TicketInfo(
    "eu", "core-1", b"k" * 16, "gateway-1", b"i" * 16, b"s" * 16, NOW, NOW + TICKET_MAX_MS
)


def sign(message: bytes) -> bytes:
    return b"signed " + message[:8]


def private_key() -> HpkePrivate:
    return HpkePrivate(memoryview(bytearray(os.urandom(96))))


def pair(of_caller: Arena | None = None, of_callee: Arena | None = None) -> tuple[Session, Session]:
    private = private_key()
    caller, ciphertext, _ = open_session_as_caller(
        INFO, HpkePublic.from_bytes(private.public_bytes), sign, of_caller or Arena(), fill_random
    )
    return caller, open_session_as_callee(INFO, private, ciphertext, of_callee or Arena())


def opened(session: Session, counter: int, clear: bytes, sealed: bytes) -> bytes:
    out = memoryview(bytearray(b"\xaa" * (len(sealed) - sealed_size(0))))
    try:
        session.open_request(counter, clear, sealed, out)
    except InvalidTag:
        assert not any(out)
        raise
    return out.tobytes()


def test_both_ends_agree() -> None:
    caller, callee = pair()
    plain = os.urandom(64)
    sealed = caller.seal_request(1, b"clear", memoryview(plain), os.urandom(24))
    assert len(sealed) == sealed_size(64)
    assert opened(callee, 1, b"clear", sealed) == plain
    reply = callee.seal_reply(b"d" * 32, memoryview(plain), os.urandom(24))
    out = memoryview(bytearray(64))
    with pytest.raises(InvalidTag):
        caller.open_reply(b"d" * 32, reply, out, "refused")
    caller.open_reply(b"d" * 32, reply, out)
    assert out == plain


def test_another_session_opens_nothing() -> None:
    caller, _ = pair()
    _, stranger = pair()
    sealed = caller.seal_request(1, b"clear", memoryview(b"plain"), os.urandom(24))
    with pytest.raises(InvalidTag):
        opened(stranger, 1, b"clear", sealed)


@pytest.mark.parametrize(
    "changed",
    [
        replace(INFO, region="us"),
        replace(INFO, key_id=b"K" * 16),
        replace(INFO, callee="core-2"),
        replace(INFO, caller="gateway-2"),
        replace(INFO, incarnation=b"I" * 16),
        replace(INFO, session_id=b"S" * 16),
        replace(INFO, issued_ms=NOW + 1),
        replace(INFO, expiry_ms=INFO.expiry_ms - 1),
    ],
)
def test_a_ticket_opens_with_its_own_info_only(changed: TicketInfo) -> None:
    private = private_key()
    public = HpkePublic.from_bytes(private.public_bytes)
    caller, ciphertext, _ = open_session_as_caller(INFO, public, sign, Arena(), fill_random)
    caller.close()
    with pytest.raises(InvalidTag):
        open_session_as_callee(changed, private, ciphertext, Arena())


@pytest.mark.parametrize("size", [0, 1, 1119, 1120, 1167, 1169, 4096])
def test_a_ciphertext_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(InvalidTag):
        open_session_as_callee(INFO, private_key(), os.urandom(size), Arena())


def test_a_secret_of_another_length_is_refused() -> None:
    private = private_key()
    public = HpkePublic.from_bytes(private.public_bytes)
    for size in (0, 31, 33):
        ciphertext = public.encrypt(memoryview(bytes(size)), INFO.encode())
        with pytest.raises(InvalidTag):
            open_session_as_callee(INFO, private, ciphertext, Arena())


def test_the_direction_matters() -> None:
    caller, callee = pair()
    sealed = callee.seal_reply(b"d" * 32, memoryview(b"plain"), os.urandom(24))
    for end in (caller, callee):
        with pytest.raises(InvalidTag):
            opened(end, 1, b"core-1", sealed)


@pytest.mark.parametrize(
    ("now", "live"),
    [
        (NOW - 5_001, False),
        (NOW - 5_000, True),
        (NOW, True),
        (INFO.expiry_ms - 1, True),
        (INFO.expiry_ms, False),
    ],
)
def test_lifetime(now: int, live: bool) -> None:
    assert INFO.live(now) is live


def test_a_longer_lifetime_is_never_live() -> None:
    longer = replace(INFO, expiry_ms=NOW + TICKET_MAX_MS + 1)
    assert not any(longer.live(now) for now in (NOW, NOW + 1, longer.expiry_ms - 1))


def test_a_closed_session_seals_and_opens_nothing() -> None:
    caller, callee = pair()
    sealed = caller.seal_request(1, b"", memoryview(b"plain"), os.urandom(24))
    caller.close()
    callee.close()
    with pytest.raises(Purged):
        caller.seal_request(1, b"", memoryview(b"plain"), os.urandom(24))
    with pytest.raises(Purged):
        callee.open_request(1, b"", sealed, memoryview(bytearray(5)))


def test_the_secret_is_wiped_once_the_keys_are_derived() -> None:
    memories = Arena(), Arena()
    pair(*memories)
    for memory in memories:
        with memory.use() as view:
            assert all(any(view[at : at + 32]) for at in (0, 32, 96))
            assert not any(view[64:96])
            assert not any(view[128:])


def test_threads_share_a_session() -> None:
    """One scratch for all: without a lock, one thread wipes it under another's derivation."""
    caller, callee = pair()
    message = os.urandom(32)

    def one(number: int) -> bool:
        sealed = caller.seal_request(number, b"", memoryview(message), os.urandom(24))
        return opened(callee, number, b"", sealed) == message

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # a switch of threads between any two steps
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(one, range(500)))
    finally:
        sys.setswitchinterval(usual)


def test_hpke_keys() -> None:
    private = private_key()
    assert len(private.public_bytes) == 1216
    with pytest.raises(ValueError, match="1216"):
        HpkePublic.from_bytes(private.public_bytes[:-1])
    with pytest.raises(ValueError, match="96"):
        HpkePrivate(memoryview(bytes(95)))
    with pytest.raises(TypeError):
        pickle.dumps(private)


def test_a_private_key_that_is_closed_opens_nothing() -> None:
    private = private_key()
    public = HpkePublic.from_bytes(private.public_bytes)
    _, ciphertext, _ = open_session_as_caller(INFO, public, sign, Arena(), fill_random)
    private.close()
    private.close()
    with pytest.raises(KeyClosed):
        open_session_as_callee(INFO, private, ciphertext, Arena())
