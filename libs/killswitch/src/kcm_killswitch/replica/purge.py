"""Purging many tenants: a fault with one of them keeps none of the others' keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from kcm_runtime.error_text import describe

log = logging.getLogger(__name__)


def purge_each(purge: Callable[[str], int], tenants: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """Purge every tenant; returns how many keys went, and the tenants with which that failed."""
    dropped, failed = 0, []
    for tenant in tenants:
        try:
            dropped += purge(tenant)
        except Exception as error:  # noqa: BLE001 - the next one has to be purged all the same
            log.critical("the keys of a tenant could not be purged: %s", describe(error))
            failed.append(tenant)
    return dropped, tuple(failed)
