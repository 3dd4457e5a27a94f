"""Every block of ``docs/sdk.md`` runs as it stands there, in its order, and is typed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kcm
import pytest
from kcm_devsystem.configs import config_file

from tests.integration.living import Living

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sdk.md").read_text()
BLOCK = re.compile(r"<!-- run -->\n```(sh|python)\n(.*?)```", re.DOTALL)


def test_every_block_is_run() -> None:
    assert len(BLOCK.findall(PAGE)) == PAGE.count("```") // 2 >= 10


@pytest.fixture
def living() -> Iterator[Living]:
    """A system whose application has no grant yet: the page creates it."""
    with Living.started(allow=False, applications=1) as made:
        yield made


@pytest.mark.timeout(170)
def test_the_page_can_be_followed(living: Living, tmp_path: Path) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KCM_CONTEXT": str(living.context.path),
        "GATEWAY_CONFIG": str(config_file(living.directory, living.options.embedded[0])),
        "PYTHONWARNINGS": "error",
    }
    said = ""
    for number, (language, text) in enumerate(BLOCK.findall(PAGE)):
        command = ["bash", "-euc", text]
        if language == "python":
            script = tmp_path / f"block_{number}.py"
            script.write_text(text)
            command = [sys.executable, script.name]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        if language == "python":
            assert done.stderr == ""
        said += done.stdout
    assert "tampered: 1 of 2 records failed; the first is [1]: tampered" in said
    assert "b'2' is set aside: tampered" in said
    assert "nothing was stored: tenant_killed" in said


def test_blocks_and_examples_are_typed(tmp_path: Path) -> None:
    for number, (language, text) in enumerate(BLOCK.findall(PAGE)):
        if language == "python":
            (tmp_path / f"block_{number}.py").write_text(text)
    command = [
        sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"),
        "--follow-imports", "silent", str(tmp_path), str(ROOT / "examples"),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_table_has_every_exception() -> None:
    public = {name: getattr(kcm, name) for name in kcm.__all__}
    errors = {
        name for name, one in public.items() if isinstance(one, type) and issubclass(one, Exception)
    }
    assert not [name for name in errors if f"`{name}`" not in PAGE]


def test_the_readme_shows_the_example_that_is_run() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = {line.strip() for line in (ROOT / "examples/first_steps.py").read_text().splitlines()}
    assert {line.strip() for line in shown.splitlines()} <= example
