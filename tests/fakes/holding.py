"""Instances that no hold takes out of service."""

from __future__ import annotations

from typing import Literal

from kcm_gateway.core_client import caller_of
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_runtime.instance import InstanceContext
from kcm_sessions.caller import Caller


def none_held(scope: Literal["app", "instance"]) -> HeldKeys:
    return HeldKeys(Revocations(Registry(), "eu"), scope)


def unheld(me: InstanceContext) -> Caller:
    """A Gateway that calls every Core of its roster."""
    return caller_of(me, none_held("instance"))
