"""On a machine that lacks what ``make setup`` needs, it says what to install."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory in which ``make setup`` finds what it depends on, and nothing to install."""
    for path in (
        ROOT / "Makefile",
        ROOT / "requirements.lock",
        *ROOT.glob("[!.]*/**/pyproject.toml"),
    ):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def setup(checkout: Path, python: object) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "setup", f"PYTHON={python}"]
    return subprocess.run(command, cwd=checkout, check=False, capture_output=True, text=True)


def test_a_missing_python_is_named_with_its_package(checkout: Path) -> None:
    done = setup(checkout, "python3.12-not-there")
    first = done.stderr.splitlines()[0]
    assert done.returncode != 0
    assert first.startswith("make setup: python3.12-not-there is missing, is older than 3.11")
    assert "apt-get install python3.11-venv" in first
    assert not (checkout / ".venv").exists()


def test_a_python_without_ensurepip_makes_no_environment(checkout: Path) -> None:
    """As Debian's python3.11 without python3.11-venv."""
    python = program(checkout / "python", "exit 1")
    done = setup(checkout, python)
    assert done.returncode != 0
    assert "apt-get install python3.11-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_environment_without_pip_is_made_again(checkout: Path) -> None:
    program(checkout / ".venv" / "bin" / "python", "exit 1")
    calls = checkout / "calls"
    pip = checkout / ".venv" / "bin" / "pip"
    program(checkout / "pip", f'echo "pip $1" >> {calls}')
    python = program(
        checkout / "python",
        f'[ "$1" = -c ] || {{ echo "python $*" >> {calls}; cp {checkout}/pip {pip}; }}',
    )
    done = setup(checkout, python)
    assert done.returncode == 0, done.stderr
    assert calls.read_text().splitlines() == ["python -m venv .venv", "pip install", "pip install"]


def test_an_index_that_lacks_something_is_named_as_the_cause(checkout: Path) -> None:
    program(checkout / ".venv" / "bin" / "pip", "echo 'No matching distribution' >&2; exit 1")
    done = setup(checkout, "python3.12-not-there")
    assert done.returncode != 0
    assert "No matching distribution" in done.stderr
    assert "It needs a package index" in done.stderr
    assert not (checkout / ".venv" / ".installed").exists()
