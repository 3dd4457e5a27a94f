"""Asking the tool that knows the providers of root keys.

Providers' libraries are never loaded into this process: ``python -m kcm_core.root_keys`` runs
beside it, with the caller's environment, and prints one JSON object.
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
"""The module that knows the providers, of the package ``kcm-core``."""

STEPS: Final = 6
"""Steps of a check, each with its own deadline, and one for starting."""

START_S: Final = 30.0
"""Seconds for which a provider's library may be imported."""


def ask(
    command: Literal["check", "policy"],
    uri: str,
    *,
    deadline_s: float = 10.0,
    model: Literal["byok", "hyok"] = "byok",
) -> dict[str, Any]:
    """What the tool says; raises ``Problem`` when it cannot be asked or does not understand."""
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
        raise Problem(Exit.FAULT, "internal", "the providers' tool did not answer") from None
    if not isinstance(said, dict) or "error" in said:
        detail = said.get("detail", "") if isinstance(said, dict) else ""
        raise Problem(Exit.USAGE, "malformed", str(detail), "docs/l1 has a page for each provider")
    return said
