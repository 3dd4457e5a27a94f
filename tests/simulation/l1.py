"""Customers' keys: endpoints that may disagree, and what one Core's unsealer makes of them.

A key has endpoints in every region (an HSM's members, a cloud's replicas). A call goes to one of
its region's, drawn at random, and is decided at one instant there; the answer may take long. An
endpoint that says nothing is asked until the deadline ends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Final

from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.port import Probe, UnsealResult, Wrapped

from tests.simulation.loop import SimLoop

MECHANISM: Final = "simulated"
VERSION: Final = "1"
TAG_SIZE: Final = 16


@dataclass(slots=True)
class Endpoint:
    """One place where a key is asked."""

    region: str
    state: L1State = L1State.ENABLED
    slow_s: float = 0.02
    hangs: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint decided, for whoever watches. ``wrong``: the asker's credentials were."""

    uri: str
    region: str
    instance: str
    incarnation: bytes
    state: L1State
    wrong: bool


class CustomerKeys:
    """Every customer's key."""

    def __init__(self, loop: SimLoop, regions: list[str]) -> None:
        self.loop: Final = loop
        self.random: Final = random.Random(loop.random.random())
        self.regions: Final = regions
        self.keys: Final[dict[str, list[Endpoint]]] = {}
        self._era = 0
        self.on_answer: list[Callable[[Answer], None]] = []

    def create(self, uri: str, per_region: int = 2) -> list[Endpoint]:
        """A new key with endpoints everywhere."""
        made = [Endpoint(region) for region in self.regions for _ in range(per_region)]
        self.keys[uri] = made
        return made

    def turn(self, uri: str, state: L1State, spread_s: float, regions: list[str]) -> None:
        """Have the endpoints of some regions change, each after its own share of ``spread_s``."""
        for endpoint in self.keys[uri]:
            if endpoint.region in regions:
                after = self.random.random() * spread_s
                self.loop.after(after, self._change, endpoint, state, self._era)

    def mend(self) -> None:
        """Have every endpoint answer again, whatever was about to befall it."""
        self._era += 1
        for endpoints in self.keys.values():
            for endpoint in endpoints:
                endpoint.hangs, endpoint.slow_s = False, Endpoint("").slow_s
                endpoint.state = L1State.ENABLED

    def _change(self, endpoint: Endpoint, state: L1State, era: int) -> None:
        if era == self._era:
            endpoint.state = state

    def ask(self, uri: str, region: str) -> Endpoint:
        """The endpoint that takes a call."""
        here = [endpoint for endpoint in self.keys[uri] if endpoint.region == region]
        return here[int(self.random.random() * len(here))]


class SimUnsealer:
    """``UnsealerPort`` of one incarnation of a Core."""

    def __init__(self, keys: CustomerKeys, region: str, instance: str, incarnation: bytes) -> None:
        self._keys: Final = keys
        self._region: Final = region
        self._instance: Final = instance
        self._incarnation: Final = incarnation
        self.wrong_credentials = False
        """Set by whoever broke this instance's configuration, and nobody else's."""

    async def wrap(
        self,
        uri: str,
        plaintext: bytes | bytearray | memoryview,
        context: bytes,
        *,
        deadline_s: float,
    ) -> Wrapped:
        """As the port says."""
        await self._call(uri, deadline_s)
        blob = seal(uri, bytes(plaintext), context)
        return Wrapped(blob, MECHANISM, VERSION, self._principal)

    async def unwrap_into(
        self,
        uri: str,
        blob: bytes,
        context: bytes,
        mechanism: str,
        out: memoryview,
        *,
        deadline_s: float,
    ) -> UnsealResult:
        """As the port says."""
        out[:] = bytes(len(out))
        await self._call(uri, deadline_s)
        opened = unseal(uri, blob, context, mechanism)
        if len(opened) != len(out):
            raise L1Error(L1State.INVALID, "the plaintext is not as long as it has to be")
        out[:] = opened
        return UnsealResult(VERSION, self._principal)

    async def probe(
        self,
        uri: str,
        blob: bytes,
        context: bytes,
        mechanism: str,
        digest: bytes,
        *,
        deadline_s: float,
    ) -> Probe:
        """As the port says."""
        await self._call(uri, deadline_s)
        if sha256(unseal(uri, blob, context, mechanism)).digest() != digest:
            raise L1Error(L1State.INVALID, "the canary unwrapped to another value")
        return Probe(L1State.ENABLED, VERSION, self._principal)

    async def inspect(self, uri: str, *, deadline_s: float) -> Mapping[str, str]:
        """As the port says."""
        await self._call(uri, deadline_s)
        return {"bits": "256"}

    @property
    def _principal(self) -> str:
        return f"core-{self._region}"

    async def _call(self, uri: str, deadline_s: float) -> None:
        keys = self._keys
        endpoint = keys.ask(uri, self._region)
        taken = endpoint.slow_s * (0.2 + 1.6 * keys.random.random())
        try:
            async with asyncio.timeout(deadline_s):
                if endpoint.hangs or endpoint.state is L1State.UNREACHABLE:
                    await asyncio.sleep(deadline_s if endpoint.hangs else taken)
                    raise L1Error(L1State.UNREACHABLE, "no answer")
                before = taken * keys.random.random()
                await asyncio.sleep(before)
                state = L1State.FORBIDDEN if self.wrong_credentials else endpoint.state
                answer = Answer(
                    uri,
                    self._region,
                    self._instance,
                    self._incarnation,
                    state,
                    self.wrong_credentials,
                )
                for told in keys.on_answer:
                    told(answer)
                await asyncio.sleep(taken - before)
        except TimeoutError:
            raise L1Error(L1State.UNREACHABLE, "no answer within the deadline") from None
        if state is not L1State.ENABLED:
            raise L1Error(state, "the simulated key says so")


def seal(uri: str, plaintext: bytes, context: bytes) -> bytes:
    """A blob that only the same key and context open."""
    return _tag(uri, plaintext, context) + plaintext


def unseal(uri: str, blob: bytes, context: bytes, mechanism: str) -> bytes:
    """Open a blob; raises ``L1Error``."""
    if mechanism != MECHANISM:
        raise L1Error(L1State.UNREACHABLE, "the provider does not know this mechanism")
    plaintext = blob[TAG_SIZE:]
    if blob[:TAG_SIZE] != _tag(uri, plaintext, context):
        raise L1Error(L1State.INVALID, "the blob does not authenticate")
    return plaintext


def _tag(uri: str, plaintext: bytes, context: bytes) -> bytes:
    key = blake2b(uri.encode(), digest_size=32).digest()
    return blake2b(context + b"|" + plaintext, digest_size=TAG_SIZE, key=key).digest()
