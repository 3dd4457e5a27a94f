"""The HPKE keys of this incarnation: made in memory, changed every 58 minutes, never on a disk.

Tickets are made for the current key until it is replaced. Then it opens the last tickets that were
made for it, and is dropped: what was recorded on the bus before that is opened by no later theft.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kcm_runtime.host import Host
from kcm_schemas import limits
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.session import SessionKey
from kcm_schemas.signed import Kind
from kcm_sealing.hpke import SECRET_SIZE, SUITE_NAME, HpkePrivate
from kcm_sealing.memory import Lend, SecretRandomness

CURRENT_S: Final = limits.SESSION_KEY_MAX_MS / 1000
"""Seconds in which tickets are made for a key."""

KEPT_S: Final = CURRENT_S + (limits.TICKET_MAX_MS + 2 * limits.SKEW_MS) / 1000
"""Seconds after which a key is dropped: its last ticket has ended by every clock."""

_STEP_MS: Final = 1_000
"""Milliseconds of a step of the wall clock after which the current key is stated again."""


@dataclass(slots=True)
class SessionPrivate:
    """One key, and the tickets that it has opened: they are remembered as long as it exists.

    ``tickets`` has the session ids by caller and its key. ``made`` is ``clock.elapsed`` of its
    making: no step of the wall clock makes a key older or younger.
    """

    private: HpkePrivate
    key_id: bytes
    made: float
    issued_ms: int = 0
    statement: bytes = b""
    tickets: dict[tuple[str, bytes], set[bytes]] = field(default_factory=dict)


class SessionKeys:
    """The current key, and the one before while it may still open tickets."""

    def __init__(self, host: Host, randomness: SecretRandomness, lend: Lend) -> None:
        """``lend`` makes the memory in which a key is generated."""
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._random: Final = randomness
        self._lend: Final = lend
        self._keys: list[SessionPrivate] = []
        self._closed = False

    def close(self) -> None:
        """Drop every key; tickets open nothing any more."""
        self._closed = True
        for key in self._keys:
            key.private.close()
        self._keys.clear()

    def statement(self) -> bytes:
        """Return the signed statement of the current key (a ``SessionKey``).

        Raises ``unavailable`` after ``close``.
        """
        self.change()
        if not self._keys:
            raise KcmError(Code.UNAVAILABLE, "this instance ends")
        key = self._keys[-1]
        now_ms = self._clock.unix_ms()
        issued_ms = now_ms - int((self._clock.elapsed() - key.made) * 1000)
        if not key.statement or abs(issued_ms - key.issued_ms) > _STEP_MS:
            key.issued_ms = issued_ms
            key.statement = encode(self._me.identity.sign(Kind.SESSION_KEY, self._body(key)))
        return key.statement

    def find(self, key_id: bytes) -> SessionPrivate | None:
        """Return the key with this id, or ``None`` if this incarnation does not have it."""
        self._drop_old()
        return next((key for key in self._keys if key.key_id == key_id), None)

    def change(self) -> None:
        """Drop what is too old, and make a new key if the current one is to be replaced."""
        self._drop_old()
        now = self._clock.elapsed()
        if not self._closed and not (self._keys and now - self._keys[-1].made < CURRENT_S):
            self._keys.append(self._made(now))

    def _drop_old(self) -> None:
        now = self._clock.elapsed()
        for key in [key for key in self._keys if now - key.made >= KEPT_S]:
            key.private.close()
            self._keys.remove(key)

    def _made(self, now: float) -> SessionPrivate:
        memory = self._lend()
        try:
            with memory.use(SECRET_SIZE) as secret:
                self._random.fill(secret)
                private = HpkePrivate(secret)
        finally:
            memory.purge()
        return SessionPrivate(private, self._random.public(limits.ID_SIZE), now)

    def _body(self, key: SessionPrivate) -> SessionKey:
        return SessionKey(
            instance=self._me.name,
            role=self._me.role,
            region=self._me.region,
            incarnation=self._me.incarnation,
            key_id=key.key_id,
            suite=SUITE_NAME,
            public=key.private.public_bytes,
            issued_ms=key.issued_ms,
            valid_ms=limits.SESSION_KEY_MAX_MS,
        )
