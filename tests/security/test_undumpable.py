"""Every process of ours, the ``kcm`` command included, is one that nobody of its user can trace."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import ctypes, resource, sys
from types import SimpleNamespace
from kcm_runtime import process

def build(config, clock):
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
    raise process.ConfigError("seen")

settings = SimpleNamespace(instance="a", region="eu", log=SimpleNamespace(format="text"))
process.load = lambda model, path: settings
sys.argv = ["x", "--config", "/nonexistent"]
sys.exit(process.run("x", process.InstanceConfig, build))
"""
"""Runs what runs every service, and asks the kernel (PR_GET_DUMPABLE) before anything is built."""


def test_a_service_cannot_be_dumped_before_it_reads_a_secret():
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["0", "0", "0"], done.stderr


@pytest.mark.parametrize("service", ["kcm_core", "kcm_gateway", "kcm_auditor"])
def test_every_service_does_so(service, tmp_path):
    program = f"""
import ctypes, runpy, sys
sys.argv = ["x", "--config", "{tmp_path}/nothing"]
try:
    runpy.run_module("{service}", run_name="__main__")
except SystemExit as ended:
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), ended.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["0", "2"], done.stderr


def test_the_command_does_so():
    program = """
import ctypes, sys
from kcm.entry import main
sys.argv = ["kcm", "--version"]
try:
    main()
except SystemExit as ended:
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), ended.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 0", done.stderr
