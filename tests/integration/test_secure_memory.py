"""Core and Gateway say how well their memory protects keys: in their metadata, and in the log."""

from __future__ import annotations

import asyncio
import json

import pytest
from kcm_keymem.page_source import PageSource
from kcm_keymem.secure_memory import SecureMemory

from tests.integration.living import EU

EXPECTED = str(SecureMemory("; ".join(PageSource().lacks)))
"""Development processes cannot be dumped, and lack what this process lacks on the same kernel."""


@pytest.mark.parametrize("service", ["kcm-core", "kcm-gateway"])
async def test_it_is_in_the_metadata_and_in_the_log(living, service: str) -> None:
    async with living.operator(EU) as bus:
        told = json.loads(await bus.request(f"$SRV.INFO.{service}", b"", 10))
    assert told["metadata"]["secure_memory"] == EXPECTED
    log = living.directory / "log" / f"{told['metadata']['instance']}.log"
    text = await asyncio.to_thread(log.read_text, encoding="utf-8")
    assert f"secure memory: {EXPECTED}" in text
