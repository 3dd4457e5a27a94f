"""``python -m kcm_core.root_keys check|policy URI``: a customer's key, without any running service.

Prints one JSON object. The credentials are those of the environment. The exit code is 0 if the
object contains a result, and 2 if the URI is invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any, Final

from kcm_core.providers.pkcs11 import modules
from kcm_core.providers.remediation import fix, fix_lack, policy
from kcm_core.providers.requirements import Model
from kcm_core.providers.state import L1Error
from kcm_core.providers.uri import L1Uri, L1UriError, Pkcs11Uri, SoftkeyUri, parse, scheme
from kcm_core.root_keys.key_check import Checked, check
from kcm_core.unsealer.client import Unsealer
from kcm_core.unsealer.confinement import confine

DEADLINE_S: Final = 10.0
"""Default time in seconds for each step."""

EXIT_USAGE: Final = 2


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m kcm_core.root_keys", description=__doc__)
    parser.add_argument("command", choices=["check", "policy"])
    parser.add_argument("uri", metavar="URI")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, metavar="SECONDS")
    parser.add_argument("--model", choices=["byok", "hyok"], default="byok")
    asked = parser.parse_args()
    try:
        uri = parse(asked.uri)
    except L1UriError as error:
        _print({"error": "malformed", "detail": str(error)})
        return EXIT_USAGE
    if asked.command == "policy":
        _print({"provider": scheme(asked.uri), "policy": policy(uri)})
    else:
        _print(asyncio.run(_check(asked.uri, uri, asked.deadline, asked.model)))
    return 0


async def _check(text: str, uri: L1Uri, deadline_s: float, model: Model) -> dict[str, Any]:
    # A laptop has no files of a Core, and its user's own settings may be anywhere.
    unsealer = Unsealer({**os.environ, confine.SWITCH: "off", **_allowed(uri)})
    try:
        await unsealer.start()
        checked = await check(
            unsealer,
            text,
            model=model,
            deadline_s=deadline_s,
            now=time.monotonic,
            random=os.urandom,
        )
    except L1Error as error:
        checked = Checked(error.state, (), error=error)
    finally:
        await unsealer.close()
    if checked.error is not None:
        missing, next_steps = [str(checked.error)], [fix(uri, checked.error)]
    else:
        missing = list(checked.lacks)
        next_steps = [fix_lack(checked.lacks)] if missing else []
    return {
        "provider": scheme(text),
        "state": checked.state.value,
        "model": model,
        "may_be_linked": checked.error is None and not (model == "hyok" and missing),
        "mechanism": checked.mechanism,
        "key_version": checked.key_version,
        "principal": checked.principal,
        "steps": [
            {"step": one.name, "state": one.state.value, "ms": one.ms, "detail": one.detail}
            for one in checked.steps
        ],
        "missing": missing,
        "fix": next_steps,
    }


def _allowed(uri: L1Uri) -> dict[str, str]:
    """The options that the user allows by naming them: no Core's list applies at a laptop."""
    match uri:
        case SoftkeyUri():
            return {"KCM_DEVELOPMENT": "1"}
        case Pkcs11Uri():
            return {modules.VARIABLE: uri.module_path}
        case _:
            return {}


def _print(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
