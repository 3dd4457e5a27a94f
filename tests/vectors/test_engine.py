"""The Gateway's engine reads the record vectors as the document says, bad ones among good ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from kcm_gateway.config import EngineSettings
from kcm_gateway.core_client import Unwrapping
from kcm_gateway.engine import Gateway
from kcm_gateway.keys.lease import Lease
from kcm_keymem.arena import Keys
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.admission import Permit
from kcm_killswitch.model.control_lease import FOREVER
from kcm_runtime.clock import SystemClock, SystemRandomness
from kcm_runtime.host import Host
from kcm_schemas import labels
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.labels import ctx
from kcm_sealing import xaes

from tests.vectors import decoder, generate, product

VECTORS = generate.load("records")
KEYS = {int(version): bytes.fromhex(key) for version, key in VECTORS["service_keys"].items()}
CLOCK = SystemClock()


def expected(case: dict[str, Any]) -> tuple[Code, bytes]:
    return Code(case.get("failure", "ok")), bytes.fromhex(case.get("plaintext", ""))


class Core:
    """A Core with the service keys of the vectors, behind the two calls that the engine makes."""

    def __init__(self, region: str) -> None:
        self.region = region

    async def wrap(
        self, tenant: str, service: str, purpose: str, keys: memoryview
    ) -> tuple[Lease, bytes]:
        out = bytearray(len(keys) // 32 * 72)
        aad = ctx(labels.L4, purpose, tenant, self.region, service, 1)
        nonce = SystemKeyRandomness().public(24)
        scratch = product.scratch()
        given = Keys.of(keys)
        xaes.wrap_batch(product.locked(KEYS[1]), given, aad, nonce, memoryview(out), scratch)
        return Lease(1, CLOCK.elapsed(), CLOCK.elapsed() + 60), bytes(out)

    async def unwrap(self, wanted: Unwrapping, out: memoryview) -> tuple[Lease, dict[int, Code]]:
        version = wanted.l3_version
        if version not in KEYS:
            raise KcmError(Code.KEY_DESTROYED)
        names = (wanted.purpose, wanted.tenant, self.region, wanted.service)
        aad = ctx(labels.L4, *names, version)
        key = product.locked(KEYS[version])
        bad = xaes.unwrap_batch(key, wanted.blobs, aad, Keys.of(out), product.scratch())
        lease = Lease(version, CLOCK.elapsed(), CLOCK.elapsed() + 60)
        return lease, dict.fromkeys(bad, Code.TAMPERED)

    def close(self) -> None:
        """Nothing is kept."""


class Alive:
    """An admission of tenants that are never killed."""

    def admit(self, tenant: str, now: float) -> Permit:
        return Permit(tenant, len(tenant), FOREVER)

    def recheck(self, permit: Permit, now: float) -> float:
        assert permit.generation == len(permit.tenant)
        return FOREVER


def engine(region: str) -> Gateway:
    me: Any = SimpleNamespace(region=region)
    return Gateway(
        Host(me, CLOCK, SystemRandomness(), lambda *_, **__: None),
        cast("Any", Alive()),
        core=cast("Any", Core(region)),
        randomness=SystemKeyRandomness(),
        settings=EngineSettings(),
    )


async def decrypted(rows: list[dict[str, Any]]) -> list[tuple[Code, bytes]]:
    region, tenant, service = rows[0]["asked"]
    raws = [bytes.fromhex(row["record"]) for row in rows]
    bound = [bytes.fromhex(row["context"]) for row in rows]
    batch = await engine(region).decrypt(tenant, service, raws, bound)
    return list(zip(batch.codes or [Code.OK] * len(rows), batch.columns()[0], strict=True))


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
async def test_valid(case: dict[str, Any]) -> None:
    assert await decrypted([case]) == [expected(case)]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
async def test_invalid(case: dict[str, Any]) -> None:
    assert await decrypted([case]) == [expected(case)]


async def test_bad_ones_spoil_nothing() -> None:
    home = VECTORS["valid"][0]["asked"]
    rows = [row for row in VECTORS["valid"] + VECTORS["invalid"] if row["asked"] == home]
    assert await decrypted(rows) == [expected(row) for row in rows]


@pytest.mark.parametrize("scope", ["record", "batch"])
async def test_what_the_engine_makes_the_second_decoder_reads(scope: Any) -> None:
    plains = [b"", b"one", b"two"]
    bound = [b"", b"row 1", bytes(4096)]
    made = await engine("eu").encrypt("acme", "payroll", plains, bound, dek_scope=scope)
    assert not made.codes
    for raw, plain, app_context in zip(made.values, plains, bound, strict=True):
        assert decoder.open_record(raw, app_context, ("eu", "acme", "payroll"), KEYS) == plain
    shared = {decoder.parse_record(raw).wrapped for raw in made.values}
    indices = [decoder.parse_record(raw).index for raw in made.values]
    assert (len(shared), indices) == ((3, [0, 0, 0]) if scope == "record" else (1, [0, 1, 2]))
