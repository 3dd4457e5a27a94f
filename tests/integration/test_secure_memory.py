"""Core and Gateway say how well their memory protects keys: in their metadata, and in the log."""

from __future__ import annotations

import asyncio
import json

import pytest
from kcm_core.unsealer.confinement import landlock
from kcm_core.unsealer.isolation import Isolation
from kcm_keymem.page_source import PageSource
from kcm_keymem.secure_memory import SecureMemory

from tests.integration.living import EU

EXPECTED = str(SecureMemory("; ".join(PageSource().lacks)))
"""Development processes cannot be dumped, and lack what this process lacks on the same kernel."""

LACKS = landlock.lacks(landlock.abi())
"""What an older kernel would not restrict."""


@pytest.mark.parametrize("service", ["kcm-core", "kcm-gateway"])
async def test_it_is_in_the_metadata_and_in_the_log(living, service: str) -> None:
    async with living.operator(EU) as bus:
        told = json.loads(await bus.request(f"$SRV.INFO.{service}", b"", 10))
    assert told["metadata"]["secure_memory"] == EXPECTED
    log = living.directory / "log" / f"{told['metadata']['instance']}.log"
    text = await asyncio.to_thread(log.read_text, encoding="utf-8")
    assert f"secure memory: {EXPECTED}" in text


async def test_a_core_says_how_its_unsealer_is_separated(living) -> None:
    async with living.operator(EU) as bus:
        told = json.loads(await bus.request("$SRV.INFO.kcm-core", b"", 10))
    state = told["metadata"]["unsealer_isolation"]
    assert state == str(Isolation("; ".join(("the unsealer runs as the Core's user", *LACKS))))
    log = living.directory / "log" / f"{told['metadata']['instance']}.log"
    text = await asyncio.to_thread(log.read_text, encoding="utf-8")
    assert text.count(f"unsealer isolation: {state}") == 1
