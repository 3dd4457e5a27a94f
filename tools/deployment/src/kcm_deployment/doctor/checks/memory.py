"""What the kernel offers for the memory of keys."""

from __future__ import annotations

from kcm_keymem.page_source import PageSource


def page_lacks() -> tuple[str, ...]:
    """Return what pages for keys lack on this machine, in words; empty if they are secret."""
    return PageSource().lacks
