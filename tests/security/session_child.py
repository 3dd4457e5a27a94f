"""A Gateway with sessions and a session key, which lives through one event and then is searched.

``python -m tests.security.session_child PATTERN FD``: see ``memory_child``. The parts are those of
production, and the clock is moved by hand. The application's clients are in the same process: what
is found may be on either side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Self

from kcm._internal.sealed_channel import SealedChannel
from kcm_keymem.random import SystemKeyRandomness
from kcm_schemas import data_subjects
from kcm_schemas.codec import encode
from kcm_schemas.data import EncryptRequest
from kcm_sealing.hpke import SECRET_SIZE
from kcm_sessions.session_keys import KEPT_S
from kcm_sessions.sessions import TICKET_S, Limits

from tests.security.memory_child import COUNT, KEPT, Tell, main
from tests.unit.app_rig import Bus, Roster, Served, app
from tests.vectors.families.messages import identity

SUBJECT: Final = data_subjects.gateway("eu", "encrypt", "acme", "crm")


def silent(_: memoryview) -> None:
    """Tell nothing."""


class Telling(SystemKeyRandomness):
    """Tells the secrets that it makes: those of session keys, and those of sessions."""

    def __init__(self, private: Tell, secret: Tell) -> None:
        self.private = private
        self.secret = secret

    def fill(self, view: memoryview) -> None:
        """Fill memory with a secret."""
        super().fill(view)
        (self.private if len(view) == SECRET_SIZE else self.secret)(view)


class Serving:
    """A Gateway, and clients of an application with a session each."""

    def __init__(self, telling: Telling) -> None:
        bounds = Limits(sessions=COUNT, per_caller=COUNT, tickets=3 * COUNT)
        self.telling: Final = telling
        self.gateway: Final = Served(bounds=bounds, randomness=telling)
        self.gateway.registry.put(app())
        self.clients: Final[list[SealedChannel]] = []

    @classmethod
    async def opened(cls, *, private: Tell = silent, secret: Tell = silent, keys: Tell) -> Self:
        """Make a Gateway with as many sessions as it keeps, and tell what is wanted of them."""
        made = cls(Telling(private, secret))
        KEPT.append(made)
        await made.open(keys)
        return made

    async def open(self, keys: Tell = silent) -> None:
        """Open sessions, and use each for a request; ``keys`` gets the keys of the clients."""
        clock, me = self.gateway.clock, identity("shop")
        for _ in range(COUNT):
            client = SealedChannel(Bus(self.gateway), me, "eu", Roster(), clock, self.telling)
            self.clients.append(client)
            request = EncryptRequest(
                v=1,
                deadline_ms=clock.unix_ms() + 1000,
                dek_scope="record",
                plaintexts=[b"x"],
                contexts=[],
            )
            await client.request(SUBJECT, encode(request), 1.0)
            for session in client._sessions._open.values():  # noqa: SLF001 - nothing shows the keys
                with session.keys._memory.use(128) as view:  # noqa: SLF001
                    keys(view[:64])
                    keys(view[96:])

    async def leave(self) -> None:
        """End the clients; the Gateway does not notice."""
        for client in self.clients:
            await client.close()


async def in_use(tell: Tell) -> None:
    """A control that must be found: a session key, and the keys of sessions."""
    await Serving.opened(private=tell, keys=tell)


async def derived(tell: Tell) -> None:
    """The secrets from which the keys of open sessions were derived."""
    await Serving.opened(secret=tell, keys=silent)


async def evicted(tell: Tell) -> None:
    """Sessions that made room for others of the same application."""
    serving = await Serving.opened(secret=tell, keys=tell)
    await serving.leave()
    serving.telling.secret = silent
    await serving.open()


async def expired(tell: Tell) -> None:
    """Sessions whose tickets have ended."""
    serving = await Serving.opened(secret=tell, keys=tell)
    await serving.leave()
    serving.gateway.clock.now += TICKET_S
    serving.gateway.sessions.wipe_ended()


async def replaced(tell: Tell) -> None:
    """A session key that opens no ticket any more, and the secrets of its tickets."""
    serving = await Serving.opened(private=tell, secret=tell, keys=silent)
    await serving.leave()
    serving.telling.private = silent
    serving.gateway.clock.now += KEPT_S
    assert serving.gateway.keys.statement()


async def closed(tell: Tell) -> None:
    """A Gateway that ends in order."""
    serving = await Serving.opened(private=tell, secret=tell, keys=tell)
    await serving.leave()
    serving.gateway.sessions.close()
    serving.gateway.keys.close()


def _sync(pattern: Callable[[Tell], Awaitable[None]]) -> Callable[[Tell], None]:
    return lambda tell: asyncio.run(pattern(tell))


if __name__ == "__main__":
    main(
        {one.__name__: _sync(one) for one in (in_use, derived, evicted, expired, replaced, closed)}
    )
