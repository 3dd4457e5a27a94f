"""A process that handles keys in one way and then waits to be searched.

``python -m tests.security.memory_child PATTERN FD [FILE]``: writes every key, 32 bytes each and
straight from locked memory, to ``FD``; does its work; says ``ready`` and waits for its input to
end. Its arenas have no secret pages: the search must see what a purge leaves in them.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kcm_keymem.arena import Arena, ScratchPool
from kcm_keymem.pages import fill_random
from kcm_runtime.files.secret_file import read_secret
from kcm_schemas import limits
from kcm_sealing import session, xaes
from kcm_sealing.hpke import SECRET_SIZE, HpkePrivate, HpkePublic
from kcm_trust.identity import Identity

from tests.security.old_kernel import refuse_memfd_secret

Tell: TypeAlias = Callable[[memoryview], None]

COUNT = 16
"""Keys of one kind: enough to see a leak that happens now and then."""

SIZE = COUNT * 32
NONCES = (b"b" * 24, b"s" * 24)
"""Nonces of the batch and of the single seal in ``envelope``: the search derives keys from them."""

KEPT: list[object] = []
"""What outlives its pattern."""


def envelope(tell: Tell) -> None:
    """A Core's and a Gateway's day: make, wrap, unwrap, use, seal and open keys; then purge."""
    pool, owner, other = ScratchPool(), Arena(), Arena()
    aad, blobs = b"where it belongs", bytearray(COUNT * limits.WRAPPED_SIZE)
    with owner.use() as mine, other.use() as theirs, pool.borrow(xaes.SCRATCH_SIZE) as scratch:
        fill_random(mine[: SIZE + 32])
        kek, keys = mine[SIZE : SIZE + 32], owner.keys(COUNT)
        tell(mine[: SIZE + 32])
        xaes.wrap_batch(kek, keys, aad, NONCES[0], memoryview(blobs), scratch)
        assert not xaes.unwrap_batch(kek, blobs, aad, other.keys(COUNT), scratch)
        assert xaes.unwrap_batch(kek, blobs, b"elsewhere", other.keys(COUNT, COUNT), scratch)
        sealed = xaes.seal(kek, keys.each[0], aad, NONCES[1], scratch)
        xaes.open_into(kek, sealed, aad, theirs[:32], scratch)
        for at in range(0, SIZE, 32):
            cipher = AESGCM(theirs[at : at + 32])
            assert cipher.decrypt(bytes(12), cipher.encrypt(bytes(12), b"payload", aad), aad)
        del cipher
    owner.purge()
    other.purge()


def _info() -> session.TicketInfo:
    return session.TicketInfo("eu", "core-1", bytes(16), "gateway-1", bytes(16), bytes(16), 0, 1)


def caller(tell: Tell) -> None:
    """A Gateway's sessions: made, used, closed."""
    for made in _made(tell):
        _use(made)
        made.close()


def unused(tell: Tell) -> None:
    """A Gateway's sessions, closed before their first use: nothing overwrites the stack after."""
    for made in _made(tell):
        made.close()


def _made(tell: Tell) -> Iterator[session.Session]:
    with ScratchPool().borrow(SECRET_SIZE) as secret:
        fill_random(secret)
        public = HpkePublic.from_bytes(HpkePrivate(secret).public_bytes)
    for _ in range(COUNT):
        memory = Arena()
        made, _, _ = session.open_session_as_caller(
            _info(), public, lambda message: message[:1], memory, fill_random
        )
        with memory.use() as view:
            tell(view[:64])
            tell(view[96:128])
        yield made


def callee(tell: Tell) -> None:
    """A Core's sessions: opened from tickets, used, closed; then its HPKE key dropped."""
    with ScratchPool().borrow(SECRET_SIZE) as secret:
        fill_random(secret)
        tell(secret)
        private = HpkePrivate(secret)
    public = HpkePublic.from_bytes(private.public_bytes)
    with ScratchPool().borrow(32) as chosen:
        for _ in range(COUNT):
            fill_random(chosen)
            tell(chosen)
            ciphertext = public.encrypt(chosen, _info().encode())
            memory = Arena()
            opened = session.open_session_as_callee(_info(), private, ciphertext, memory)
            with memory.use() as view:
                tell(view[:64])
                tell(view[96:128])
            _use(opened)
            opened.close()


def _use(opened: session.Session) -> None:
    with ScratchPool().borrow(64) as view:
        sealed = opened.seal_request(1, b"clear", view[:32], os.urandom(24))
        opened.open_request(1, b"clear", sealed, view[32:])
        opened.seal_reply(bytes(32), view[:32], os.urandom(24))
        opened.has_tagged(b"message", opened.tag(b"message"))


def tagged(tell: Tell) -> None:
    """An application's sessions with a Core, used for a tag and for nothing after it."""
    for made in _made(tell):
        made.tag(b"message")
        made.close()


def identity(tell: Tell) -> None:
    """Identities: made, used to sign, dropped."""
    with ScratchPool().borrow(32) as seed:
        for _ in range(COUNT):
            fill_random(seed)
            tell(seed)
            Identity("me", Ed25519PrivateKey.from_private_bytes(seed), "test").sign_raw(b"message")


def secret_file(_: Tell) -> None:
    """A seal key, read from its file and used."""
    with ScratchPool().borrow(32) as key, ScratchPool().borrow(xaes.SCRATCH_SIZE) as scratch:
        read_secret(sys.argv[3], key)
        xaes.seal(key, b"plaintext", b"", os.urandom(24), scratch)


def as_bytes(tell: Tell) -> None:
    """A control that must be found: keys became ``bytes``, were dropped, and stay."""
    with ScratchPool().borrow(SIZE) as keys:
        fill_random(keys)
        tell(keys)
        kept = [bytes(keys[at : at + 32]) for at in range(0, SIZE, 32)]
        for key in kept:
            AESGCM(key).encrypt(bytes(12), b"payload", b"")
        del kept, key


def unpurged(tell: Tell) -> None:
    """A control that must be found: the arena is still open."""
    arena = Arena()
    with arena.use() as keys:
        fill_random(keys[:SIZE])
        tell(keys[:SIZE])
    KEPT.append(arena)


PATTERNS: dict[str, Callable[[Tell], None]] = {
    pattern.__name__: pattern
    for pattern in (
        envelope,
        caller,
        unused,
        tagged,
        callee,
        identity,
        secret_file,
        as_bytes,
        unpurged,
    )
}


def main(patterns: Mapping[str, Callable[[Tell], None]]) -> None:
    """Do what the arguments name, then wait."""
    fd = int(sys.argv[2])
    refuse_memfd_secret()

    def tell(view: memoryview) -> None:
        assert os.writev(fd, [view]) == len(view)

    patterns[sys.argv[1]](tell)
    os.close(fd)
    gc.collect()
    os.write(1, b"ready\n")
    os.read(0, 1)


if __name__ == "__main__":
    main(PATTERNS)
