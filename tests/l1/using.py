"""Using a stand's key in an environment of one's own."""

from __future__ import annotations

from collections.abc import Mapping

from kcm_core.providers.context import provider_context
from kcm_core.unsealer.client import Unsealer

from tests.l1.stand import Stand

CONTEXT = provider_context("acme", "eu-de", 1)
INNER = bytes(range(72))
D = 30.0


async def used(
    stand: Stand, environment: Mapping[str, str], uri: str | None = None, times: int = 1
) -> list[str]:
    """Wrap, and open, as often as asked; returns the names that were told."""
    unsealer = Unsealer(environment)
    await unsealer.start()
    names = []
    try:
        for _ in range(times):
            made = await unsealer.wrap(uri or stand.uri, INNER, CONTEXT, deadline_s=D)
            out = memoryview(bytearray(len(INNER)))
            told = await unsealer.unwrap_into(
                uri or stand.uri, made.blob, CONTEXT, made.mechanism, out, deadline_s=D
            )
            assert out == INNER
            names += [made.principal, told.principal]
    finally:
        await unsealer.close()
    return names


def said_nothing(captured: tuple[str, str], *texts: str) -> None:
    """Check that nobody's text, and no traceback, was printed by the unsealer or its children."""
    printed = "".join(captured)
    for text in ("Traceback", *texts):
        assert text not in printed, printed
