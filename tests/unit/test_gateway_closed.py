"""A closed engine makes no key and gives no output: its instance states that it holds no key."""

import asyncio

import pytest
from kcm_gateway import pieces as pieces_module
from kcm_schemas.codes import Code, KcmError

from tests.unit.core_rig import TENANT
from tests.unit.gateway_rig import Rig

PLAINS = [b"x", b"y", b"z"]


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
async def test_an_operation_of_several_pieces_ends_when_the_engine_is_closed(
    tmp_path, monkeypatch, operation
):
    monkeypatch.setattr(pieces_module, "PIECE", 1)
    rig = await Rig.make(tmp_path)
    sealed = await rig.engine.encrypt("acme", "crm", PLAINS)
    await rig.quiet()
    asked = len(rig.wire.asked)

    def after_the_first_piece():
        rig.worked = lambda: None
        asyncio.get_running_loop().call_soon(rig.engine.close)

    rig.worked = after_the_first_piece
    values = PLAINS if operation == "encrypt" else sealed.values
    with pytest.raises(KcmError) as info:
        await getattr(rig.engine, operation)("acme", "crm", values)
    assert info.value.code is Code.UNAVAILABLE
    await rig.quiet()
    assert rig.live_keys() == []
    assert len(rig.wire.asked) - asked <= 1  # the first piece's own


async def test_a_tenant_that_was_looked_up_meanwhile_is_not_served(tmp_path):
    rig = await Rig.make(tmp_path)
    rig.registry.drop(TENANT)
    rig.store(TENANT)
    rig.looked_up = rig.engine.close
    with pytest.raises(KcmError) as info:
        await rig.engine.encrypt("acme", "crm", [b"x"])
    assert info.value.code is Code.UNAVAILABLE
    assert rig.fetched == ["acme"]
    assert rig.live_keys() == []
