"""Purge of many tenants: an error at one tenant does not stop the purge of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields

log = logging.getLogger(__name__)


def purge_each(purge: Callable[[str], int], tenants: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """Purge every tenant; returns the number of purged keys, and the tenants that failed."""
    dropped, failed = 0, []
    for tenant in tenants:
        try:
            dropped += purge(tenant)
        except Exception as error:  # noqa: BLE001 - the next tenant must still be purged
            log.critical(
                "the keys of a tenant could not be purged; the purge of others continues: %s",
                describe(error),
                extra=fields(tenant=tenant),
            )
            failed.append(tenant)
    return dropped, tuple(failed)
