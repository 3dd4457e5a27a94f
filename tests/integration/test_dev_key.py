"""What ``kcm dev key`` prints is what ``kcm l1 check`` needs, pasted as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 120


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "system"


def bash(text: str, place: Path) -> str:
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DIR": str(place)}
    done = subprocess.run(
        ["bash", "-euc", text], env=environment, capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["pkcs11", "softkey"])
def test_the_environment_and_the_uri_are_enough_to_check_the_key(place: Path, kind: str) -> None:
    key = f'kcm dev key acme --kind {kind} --dir "$DIR"'
    said = bash(f'eval "$({key} --env)"; kcm l1 check "$({key} --uri)" -o json', place)
    assert json.loads(said)["state"] == "enabled"
    # The same for a program.
    told = json.loads(bash(f"{key} -o json", place))
    assert told["environment"].keys() == ({"SOFTHSM2_CONF"} if kind == "pkcs11" else set())
    assert told["uri"].partition(":")[0] == kind
    # What a person sees ends with commands to be pasted.
    shown = bash(f"{key} -o table", place).splitlines()
    assert shown[-1].startswith("kcm l1 check ")
    commands = "\n".join(shown[-1 - len(told["environment"]) :])
    assert json.loads(bash(f"{commands} -o json", place))["state"] == "enabled"
