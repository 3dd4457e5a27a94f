"""The README's commands do what it says, in its order, in a fresh directory."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"<!-- run with names -->\n```sh\n(.*?)```", re.DOTALL)
BLOCK = re.compile(r"<!-- run(?:: exit (\d+))? -->\n```sh\n(.*?)```", re.DOTALL)


LOSS = """
kcm l1 link acme-root "$(kcm dev key acme-root --kind softkey --uri)"
kcm tenant create acme --link acme-root
kcm dev down
rm state/core-eu-de-*/registry-floors
kcm dev up
kcm registry show | grep -q '"baseline": false'
"""
"""All Cores of a region lose their baseline of its registry."""


def blocks(name):
    return [(int(code or 0), text) for code, text in BLOCK.findall((ROOT / name).read_text())]


@pytest.fixture
def place(tmp_path):
    """A directory with a README to encrypt, and a state directory of its own."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(ROOT / "README.md", work)
    # The set-up is what this test runs in already.
    (work / "Makefile").write_text("setup:\n\t@true\n")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    yield work, environment
    subprocess.run(
        ["kcm", "dev", "down"], cwd=work, env=environment, check=False, capture_output=True
    )


@pytest.mark.timeout(600)
def test_the_commands_document_can_be_followed(place):
    work, environment = place
    (work / "report.pdf").write_bytes(bytes(range(256)) * 4096)
    (work / "people.csv").write_text("id,name,ssn\n7,Ada,1\n8,Grace,2\n")
    (work / "docs").mkdir()
    steps = blocks("docs/cli.md")
    assert len(steps) >= 10
    for code, text in steps:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=work, env=environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{text}\n{done.stdout}\n{done.stderr}"
    assert (work / "report.pdf").read_bytes() == bytes(range(256)) * 4096
    assert (work / "people.csv").read_text() == "id,name,ssn\n7,Ada,1\n8,Grace,2\n"


@pytest.mark.timeout(300)
def test_what_is_lost_and_who_leaves_as_the_commands_document_says(place):
    """The names of people and places are those of the system: the rest is run as it is printed."""
    work, environment = place
    made = ["kcm", "dev", "up", "--region", "eu-de", "--region", "us-east", "--cores", "2"]
    subprocess.run(made, env=environment, check=True, capture_output=True, timeout=120)
    system = Path(environment["XDG_STATE_HOME"]) / "kcm" / "dev"
    subprocess.run(["bash", "-euc", LOSS], cwd=system, env=environment, check=True, timeout=120)
    names = {
        "bob": "core-eu-de-2",
        "carol": "core-us-east-2",
        "/media/root/key": str(system / "keys" / "root"),
        "--known roster": f"--known {system / 'roster'}",
        "adopt --region eu-de": "adopt --region eu-de --yes",
        "--before 2026-03-01": "--before 2026-03-01 --yes",
    }
    region, roster, registry = NAMED.findall((ROOT / "docs" / "cli.md").read_text())
    for text in (registry, roster, region):
        for name, own in names.items():
            text = text.replace(name, own)  # noqa: PLW2901
        done = subprocess.run(
            ["bash", "-euc", text], cwd=work, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    shown = subprocess.run(
        ["kcm", "roster", "show", "-o", "json"], env=environment, capture_output=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert json.loads(shown.stdout)["version"] == 3


@pytest.mark.timeout(300)
def test_the_readme_can_be_followed(place):
    work, environment = place
    steps = blocks("README.md")
    assert len(steps) >= 8
    for number, (code, text) in enumerate(steps):
        if "kcm lift" in text:
            other = "kcm tenant create other --link acme-root && kcm kill other"
            subprocess.run(["bash", "-euc", other], env=environment, check=True, timeout=60)
        done = subprocess.run(
            ["bash", "-euc", text], cwd=work, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{text}\n{done.stdout}\n{done.stderr}"
        if "kcm lift" in text:
            listed = subprocess.run(
                ["kcm", "hold", "list", "-o", "json"], env=environment, capture_output=True,
                check=True, timeout=60,
            )  # fmt: skip
            assert [hold["target"] for hold in json.loads(listed.stdout)] == ["other"]
        if number == 2:
            example = [sys.executable, str(ROOT / "examples" / "first_steps.py")]
            subprocess.run(example, env=environment, check=True, timeout=60)
    assert (work / "readme.txt").read_bytes() == (work / "README.md").read_bytes()
    assert not (work / "stolen.txt").exists()


def test_every_link_of_the_documents_leads_somewhere():
    for path in [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_commands_named_in_tables_exist():
    """What SECURITY.md names as attestation is there."""
    text = (ROOT / "SECURITY.md").read_text()
    for target in re.findall(r"pytest (tests/[\w/.]+)", text):
        assert (ROOT / target).exists(), target
