"""Trial of a customer's key as it will be used: wrap, unwrap, canary, and another context.

Its attributes are read after that: a key that works may still be too short, or exportable. A
customer at a laptop and a Core that is asked to link the key use the same five steps. The wrapped
bytes are random and are discarded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from kcm_core.providers.context import provider_context
from kcm_core.providers.port import BINDS_CONTEXT
from kcm_core.providers.requirements import Facts, Model, lacking
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import parse
from kcm_core.unsealer.port import UnsealerPort, Wrapped

SIZE: Final = 72
"""Bytes that are wrapped: the size of a tenant root under its region's seal key."""

CONTEXT: Final = provider_context("kcm-check", "kcm-check", 1)
OTHER_CONTEXT: Final = provider_context("kcm-check", "kcm-check", 2)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the trial: its result, and its duration in milliseconds."""

    name: str
    state: L1State
    ms: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result. ``error`` is why the trial ended early; the texts are then empty."""

    state: L1State
    steps: tuple[Step, ...]
    mechanism: str = ""
    key_version: str = ""
    principal: str = ""
    error: L1Error | None = None
    lacks: tuple[str, ...] = ()
    """The unmet demands on the key, one line each; the key works nevertheless."""


class _Steps:
    """Runs steps one after another and measures their time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now: Final = now
        self.done: list[Step] = []

    async def run(self, name: str, work: Awaitable[T]) -> T:
        """Run one step; its failure is recorded as a step, too, and is raised again."""
        began = self._now()
        try:
            result = await work
        except L1Error as error:
            self._add(name, error.state, began, error.detail)
            raise
        self._add(name, L1State.ENABLED, began)
        return result

    def skip(self, name: str, why: str) -> None:
        """Record why a step is not run."""
        self.done.append(Step(name, L1State.ENABLED, 0.0, why))

    async def refused(self, name: str, work: Awaitable[object]) -> None:
        """Run a step that must fail; raises ``L1Error`` if it succeeds."""
        began = self._now()
        try:
            await work
        except L1Error as error:
            if error.state is not L1State.INVALID:
                self._add(name, error.state, began, error.detail)
                raise
            self._add(name, L1State.ENABLED, began, "opens nothing")
            return
        hint = "what was wrapped under one context opens under another"
        self._add(name, L1State.INVALID, began, hint)
        raise L1Error(L1State.INVALID, hint)

    def _add(self, name: str, state: L1State, began: float, detail: str = "") -> None:
        self.done.append(Step(name, state, round((self._now() - began) * 1000, 1), detail))


async def check(
    unsealer: UnsealerPort,
    uri: str,
    *,
    model: Model = "byok",
    deadline_s: float,
    now: Callable[[], float],
    random: Callable[[int], bytes],
) -> Checked:
    """Try the key that ``uri``, a valid URI, names; an ``L1Error`` is returned, not raised.

    ``deadline_s`` is for each step. ``model`` is the link's: hyok demands more of some keys.
    """
    steps = _Steps(now)
    try:
        checked = await _try(unsealer, uri, steps, random(SIZE), deadline_s)
    except L1Error as error:
        return Checked(error.state, tuple(steps.done), error=error)
    try:
        facts: Facts = await steps.run("attributes", unsealer.inspect(uri, deadline_s=deadline_s))
    except L1Error as error:
        # A principal that may use a key need not have the right to read its attributes.
        lacks: tuple[str, ...] = (f"the key's attributes cannot be read: {error}",)
    else:
        lacks = lacking(parse(uri), facts, model)
    return replace(checked, steps=tuple(steps.done), lacks=lacks)


async def _try(
    unsealer: UnsealerPort, uri: str, steps: _Steps, plaintext: bytes, deadline_s: float
) -> Checked:
    made = await steps.run("wrap", unsealer.wrap(uri, plaintext, CONTEXT, deadline_s=deadline_s))
    await steps.run("unwrap", _unwrap(unsealer, uri, made, plaintext, CONTEXT, deadline_s))
    digest = hashlib.sha256(plaintext).digest()
    canary = unsealer.probe(uri, made.blob, CONTEXT, made.mechanism, digest, deadline_s=deadline_s)
    await steps.run("canary", canary)
    if made.mechanism in BINDS_CONTEXT:
        other = _unwrap(unsealer, uri, made, plaintext, OTHER_CONTEXT, deadline_s)
        await steps.refused("another context", other)
    else:
        steps.skip("another context", "this mechanism binds none; the nested blob does")
    return Checked(
        L1State.ENABLED, tuple(steps.done), made.mechanism, made.key_version, made.principal
    )


async def _unwrap(
    unsealer: UnsealerPort,
    uri: str,
    made: Wrapped,
    plaintext: bytes,
    context: bytes,
    deadline_s: float,
) -> None:
    out = bytearray(SIZE)
    await unsealer.unwrap_into(
        uri, made.blob, context, made.mechanism, memoryview(out), deadline_s=deadline_s
    )
    if out != plaintext:
        raise L1Error(L1State.INVALID, "what was wrapped opened to something else")
