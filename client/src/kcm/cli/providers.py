"""Requests to the tool for the providers of root keys.

This process never loads the providers' libraries. It starts ``python -m kcm_core.root_keys`` with
the caller's environment, which prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any, Final, Literal

from kcm.cli.error_report import Problem
from kcm.exit_codes import Exit

TOOL: Final = "kcm_core.root_keys"
"""The module of the providers' tool, in the package ``kcm-core``."""

STEPS: Final = 6
"""Steps of a check, each with its own deadline, and one for the start."""

START_S: Final = 30.0
"""Seconds for the import of a provider's library."""


def ask(
    command: Literal["check", "policy"],
    uri: str,
    *,
    deadline_s: float = 10.0,
    model: Literal["byok", "hyok"] = "byok",
) -> dict[str, Any]:
    """Return the tool's result; raises ``Problem`` if it is not installed or refuses the URI."""
    if find_spec(TOOL.partition(".")[0]) is None:
        raise Problem(
            Exit.USAGE, "usage", "the providers are not installed here",
            "pip install 'kcm-core[aws]' (or gcp, azure, pkcs11)",
        )  # fmt: skip
    options = [f"--deadline={deadline_s}", f"--model={model}"]
    argv = [sys.executable, "-m", TOOL, command, *options, "--", uri]
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
            timeout=START_S + STEPS * deadline_s,
        )  # fmt: skip
        said = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise Problem(
            Exit.FAULT, "internal", "the providers' tool did not reply",
            f"give the same command again; `python -m {TOOL} check -- URI` shows why",
        ) from None  # fmt: skip
    if not isinstance(said, dict) or "error" in said:
        detail = said.get("detail", "") if isinstance(said, dict) else ""
        raise Problem(Exit.USAGE, "malformed", str(detail), "docs/l1 has a page for each provider")
    return said
