"""Whether a name exists: the first region that knows it is enough."""

import asyncio
from typing import Any

import pytest
from kcm.cli.targets import find
from kcm.errors import Unavailable
from kcm_schemas.admin.holds import BlastRadius


class Regions:
    """Answers by region: names of tenants, an error, or never."""

    def __init__(self, **said: Any) -> None:
        self.said = said
        self.asked: list[tuple[str, bool]] = []

    async def preview(
        self, region: str, scope: str, name: str, *, instances: bool, deadline_s: float
    ) -> BlastRadius:
        self.asked.append((region, instances))
        said = self.said[region]
        if said is None:
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        return BlastRadius(
            tenants=said, total=len(said), services=0, regions=[region], incarnations=[]
        )

    async def has_link(self, region: str, name: str, *, deadline_s: float) -> bool:
        return False


async def test_a_region_that_knows_the_name_is_enough_while_others_are_cut_off() -> None:
    admin: Any = Regions(eu=["acme"], us=None, ap=None)
    async with asyncio.timeout(5):
        target = await find(admin, ["ap", "us", "eu"], "tenant", "acme", within_s=3600)
    assert not target.unknown
    assert list(target.reached) == ["eu"]
    assert target.silent == ["ap", "us"]
    assert {instances for _, instances in admin.asked} == {False}


@pytest.mark.parametrize("other", [None, Unavailable("away")])
async def test_where_no_region_knows_it_the_others_are_waited_for(other: Exception | None) -> None:
    admin: Any = Regions(eu=[], us=other)
    target = await find(admin, ["eu", "us"], "tenant", "acme", within_s=0.05)
    assert target.unknown
    assert target.silent == ["us"]


async def test_a_name_that_every_region_denies_is_unknown() -> None:
    admin: Any = Regions(eu=[], us=[])
    target = await find(admin, ["eu", "us"], "tenant", "acme", within_s=3600)
    assert target.unknown
    assert target.silent == []
