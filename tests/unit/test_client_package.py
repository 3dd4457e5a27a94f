"""The package's documentation: its example runs, and it lists every public name."""

import inspect
import re
import textwrap
from functools import partial
from pathlib import Path

import kcm
import pytest
from kcm._internal.client import Client
from kcm_schemas.codes import Code

from tests.fakes.client import FakeSystem
from tests.fakes.refusals import failure


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    made = FakeSystem(tmp_path)
    connect = partial(
        Client.connect, made.context_file, opener=made.open, around=made.clock.around()
    )
    monkeypatch.setattr(Client, "connect", connect)
    return made


def example() -> str:
    """The one indented block after `::` in the package's docstring."""
    found = re.findall(r"::\n\n((?:    .*\n|\n)+)", inspect.getdoc(kcm) or "")
    assert len(found) == 1
    return textwrap.dedent(found[0])


def test_the_example_runs(system: FakeSystem, capsys: pytest.CaptureFixture[str]) -> None:
    exec(example(), {"__name__": "__main__"})
    assert capsys.readouterr().out == "[b'I10', b'E11.9']\n"
    assert len(system.gateways["eu"].requests) == 2


def test_the_example_handles_a_kill(
    system: FakeSystem, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = system.gateways["eu"]

    async def killed(subject: str, body: bytes) -> bytes | None:
        return failure(Code.TENANT_KILLED) if "decrypt" in subject else None

    monkeypatch.setattr(gateway, "script", killed)
    exec(example(), {"__name__": "__main__"})
    assert capsys.readouterr().out == "the customer has locked this data\n"


def test_the_docstring_lists_every_public_name() -> None:
    listed = set(re.findall(r"``(\w+)``", kcm.__doc__ or ""))
    assert listed == set(kcm.__all__) - {"__version__"}


def test_no_document_for_users_names_an_internal_module() -> None:
    root = Path(__file__).parents[2]
    for path in (root / "README.md", root / "docs" / "sdk.md", root / "docs" / "cli.md"):
        assert "_internal" not in path.read_text(), path
