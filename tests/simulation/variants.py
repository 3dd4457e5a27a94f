"""Ways to break the system on purpose: the simulation has to notice each of them."""

from __future__ import annotations

from typing import Final

VARIANTS: Final = {
    "clock-stands-in-suspend": "leases are counted on a clock that stands in suspend",
    "accept-late": "clients accept answers however late they come",
}
"""What is broken, by name."""
