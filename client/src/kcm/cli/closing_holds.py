"""The holds that affect a tenant: those on the tenant, and those on its root key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kcm.cli.kill import DRY_RUN_S
from kcm.cli.targets import check, look

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView

    from kcm._internal.admin import Admin
    from kcm._internal.kills import Kills


@dataclass(frozen=True, slots=True)
class ClosingHold:
    """Holds on a tenant and on its root key, oldest first, and the region that replied."""

    answered: str
    own: list[HoldView]
    of_root_key: list[HoldView]


async def closing(
    admin: Admin, regions: Sequence[str], kills: Kills, tenant: str, *, everything: bool = False
) -> ClosingHold:
    """Return the holds in force, or with ``everything`` lifted ones too.

    Raises ``Problem`` for an unknown tenant.
    """
    from kcm._internal.staggered import first
    from kcm.errors import ServiceError

    answered, found = await kills.listing_of(everything=everything)
    own = [view for view in found if (view.scope, view.target) == ("tenant", tenant)]
    if not own:
        await check(admin, await look(admin, regions, "tenant", tenant, DRY_RUN_S))
    try:
        link = (await first(regions, lambda place: admin.find(place, tenant)))[1].link
    except ServiceError:
        link = ""  # still return the holds on the tenant itself
    on_link = [view for view in found if (view.scope, view.target) == ("link", link)]
    return ClosingHold(answered, own, on_link)
