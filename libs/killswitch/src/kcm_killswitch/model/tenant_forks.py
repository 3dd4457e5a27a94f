"""How a tenant is served that has several entries of one revision: by the strictest of them."""

from __future__ import annotations

from typing import Final

from kcm_schemas.registry import RegionQuorum, Tenant

_STRICTER: Final[tuple[RegionQuorum, ...]] = ("local", "majority", "all")


def stricter(versions: list[Tenant]) -> Tenant:
    """The tenant as it is served: the regions that all versions share, and the strictest quorum.

    Everything else is from the first version; a single version is returned unchanged.
    """
    first = versions[0]
    if len(versions) == 1:
        return first
    regions = set(first.regions).intersection(*(one.regions for one in versions))
    region_quorum = max((one.region_quorum for one in versions), key=_STRICTER.index)
    if not regions:
        # No region is in all of them: the tenant is served in no region until a higher revision.
        return first.model_copy(update={"regions": [], "region_quorum": region_quorum})
    return first.model_copy(update={"regions": sorted(regions), "region_quorum": region_quorum})
