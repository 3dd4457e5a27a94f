"""Read-only requests."""

from __future__ import annotations

from typing import Final

from kcm_schemas.audit import EventType

LOOKS: Final = frozenset(
    {
        EventType.ADMIN_TENANT_LIST,
        EventType.ADMIN_TENANT_FIND,
        EventType.ADMIN_TENANT_SHOW,
        EventType.ADMIN_LINK_LIST,
        EventType.ADMIN_SERVICE_LIST,
        EventType.ADMIN_APP_LIST,
        EventType.ADMIN_APP_SHOW,
        EventType.ADMIN_HOLD_STATUS,
        EventType.ADMIN_HOLD_SHOW,
        EventType.ADMIN_HOLD_LIST,
        EventType.ADMIN_HOLD_PREVIEW,
        EventType.ADMIN_HOLD_EXPORT,
        EventType.ADMIN_ROSTER_SHOW,
        EventType.ADMIN_ROSTER_SIGNED,
        EventType.ADMIN_ROSTER_LISTED,
        EventType.ADMIN_REGISTRY_SHOW,
        EventType.ADMIN_KEY_STATUS,
    }
)
"""Requests that change nothing."""
