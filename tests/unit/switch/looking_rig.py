"""Streams that lose entries, and what the Cores did about it."""


def repaired(*incarnations):
    return [
        one
        for incarnation in incarnations
        for kind, one in incarnation.events
        if kind == "stream.repaired"
    ]


def repairs(*incarnations):
    """How many of them are on record."""
    return sum(one["count"] for one in repaired(*incarnations))
