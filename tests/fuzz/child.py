"""``python -m tests.fuzz.child TARGET [libFuzzer's arguments]``: one target, until it ends."""

from __future__ import annotations

import sys

import atheris

PACKAGES = (
    "kcm", "kcm_auditor", "kcm_core", "kcm_keymem", "kcm_runtime", "kcm_schemas", "kcm_sealing",
    "kcm_trust",
)  # fmt: skip
"""The packages whose branches guide the search."""


def main() -> None:
    """Load the target with its branches instrumented, and fuzz it; does not return."""
    with atheris.instrument_imports(include=list(PACKAGES), enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
