"""Regions without broadcasts, and peer leases in a stream."""

from kcm_schemas import subjects


def place(one, region="eu"):
    return subjects.control_hold(region, one.scope, one.id)
