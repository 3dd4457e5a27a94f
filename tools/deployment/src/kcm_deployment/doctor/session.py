"""One login at a broker, as the product does it, and what the broker refuses to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from kcm_runtime.config import BusAddress
from kcm_runtime.nats.client import ReadingClient
from kcm_runtime.nats.connect_failures import Failure, Reason, failure_of
from kcm_runtime.nats.login import Login
from nats import errors as nats_errors
from nats.aio.msg import Msg

from kcm_deployment.doctor.checks.permissions import Answer, Attempt, Verb

LOGIN_S: Final = 5.0
"""Seconds for a login."""

TRY_S: Final = 5.0
"""Seconds for one attempt."""

NAME: Final = "kcm-doctor"
"""The name under which the broker lists the connection."""


class NoLogin(Exception):
    """The broker did not accept the login."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason.value)
        self.failure: Final = failure


@dataclass(slots=True)
class Session:
    """A client that is logged in, and the errors that the broker told it."""

    client: ReadingClient
    said: list[Exception] = field(default_factory=list)

    async def attempt(self, attempt: Attempt) -> Answer:
        """Try one thing, and undo it at once if the broker accepts it."""
        try:
            async with asyncio.timeout(TRY_S):
                return await self._attempt(attempt)
        except (nats_errors.Error, TimeoutError):
            return Answer.SILENT

    async def _attempt(self, attempt: Attempt) -> Answer:
        if attempt.verb is Verb.SUBSCRIBE:
            made = await self.client.subscribe(attempt.subject, cb=_ignore)
            await self.client.flush()  # the broker reports a violation before it answers
            await made.unsubscribe()
        else:
            await self.client.publish(attempt.subject, b"")
            await self.client.flush()
        refused = any(attempt.said_in(str(error)) for error in self.said)
        return Answer.REFUSED if refused else Answer.ACCEPTED


@contextlib.asynccontextmanager
async def logged_in(address: BusAddress) -> AsyncIterator[Session]:
    """Log in once, at the first address that answers; raises ``NoLogin``, ``SecretFileError``."""
    login = Login(address)
    login.check()
    session = Session(ReadingClient())

    async def on_error(error: Exception) -> None:
        session.said.append(error)

    try:
        try:
            async with asyncio.timeout(LOGIN_S):
                await session.client.connect(
                    servers=list(address.urls),
                    **login.options(),
                    name=NAME,
                    allow_reconnect=False,
                    max_reconnect_attempts=0,
                    connect_timeout=int(LOGIN_S),
                    error_cb=on_error,
                )
        except (nats_errors.Error, OSError, TimeoutError) as error:
            raise NoLogin(_reason([error, *session.said])) from None
        yield session
    finally:
        with contextlib.suppress(nats_errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(TRY_S):
                await session.client.close()


def _reason(errors: list[Exception]) -> Failure:
    """Return the most precise reason of several errors."""
    found = [failure_of(error) for error in errors]
    return next((one for one in found if one.reason is not Reason.OTHER), found[0])


async def _ignore(_message: Msg) -> None:
    """Drop what an accepted subscription receives."""
