"""Context files: found, checked, and the roster and key that they name."""

from pathlib import Path

import pytest
from kcm._internal.admin import Admin
from kcm._internal.client_context import ClientContext, ContextError
from kcm._internal.client_files import default_path
from kcm_runtime.files.identity_file import load_identity
from kcm_schemas.codec import encode
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT
from kcm_trust.verify import verify_roster

from tests.fakes.client import FakeSystem


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


def test_a_context_that_is_missing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="no context file") as caught:
        ClientContext.load(tmp_path / "none.toml", {})
    assert "kcm dev up" in caught.value.hint
    assert "--context" in caught.value.hint


def test_a_context_is_found_where_dev_up_writes_it(system: FakeSystem) -> None:
    assert default_path({"XDG_STATE_HOME": "/state"}) == Path("/state/kcm/dev/context.toml")
    named = ClientContext.load(None, {"KCM_CONTEXT": str(system.context_file)})
    assert named.region(None) == "eu"
    with pytest.raises(ContextError) as caught:
        named.region("mars")
    assert "eu, us" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('default_region = "eu"', 'default_region = "mars"'),
        ('system = "acme"', 'system = "acme"\nunknown = 1'),
        ("[regions.eu]", "[regions.'e.u']"),
        ('system = "acme"', "system = "),
    ],
)
def test_a_context_is_checked(system: FakeSystem, old: str, new: str) -> None:
    text = system.context_file.read_text()
    assert old in text
    system.context_file.write_text(text.replace(old, new))
    with pytest.raises(ContextError):
        system.context()


@pytest.mark.parametrize("version", ["1", "0", "3", '"2"', "true", "2.0"])
def test_a_context_of_another_version_is_refused_by_its_version(
    system: FakeSystem, version: str
) -> None:
    text = system.context_file.read_text()
    assert system.context().region(None) == "eu"
    text = text.replace("version = 2\n", f"version = {version}\nunknown = 1\n")
    system.context_file.write_text(text)
    with pytest.raises(ContextError, match="of the context's format; this kcm reads 2") as caught:
        system.context()
    assert "unknown" not in str(caught.value)


def test_a_context_without_a_version_is_refused_by_that(system: FakeSystem) -> None:
    text = system.context_file.read_text()
    system.context_file.write_text("unknown = 1\n" + text.replace("version = 2\n", ""))
    with pytest.raises(ContextError, match="has no version: it was written before") as caught:
        system.context()
    assert "unknown" not in str(caught.value)
    assert "add `version = 2`" in caught.value.hint


def test_only_the_roots_roster_of_this_system_is_believed(system: FakeSystem) -> None:
    roster = system.directory / "roster"
    raw = roster.read_bytes()
    assert verify_roster(raw, system.root.public, 0) == system.roster
    roster.write_bytes(encode(system.alice.sign(Kind.ROSTER, system.roster)))
    with pytest.raises(ContextError, match="not trusted") as caught:
        system.context().verifier()
    assert f"compare `root_public` in {system.context_file}" in caught.value.hint
    other = system.roster.model_copy(update={"system": "other"})
    elsewhere = load_identity(ROOT, str(system.directory / "root.key"), "other")
    roster.write_bytes(encode(elsewhere.sign(Kind.ROSTER, other)))
    with pytest.raises(ContextError, match="another system") as caught:
        system.context().verifier()
    assert f"correct `system` in {system.context_file}" in caught.value.hint
    roster.unlink()
    with pytest.raises(ContextError, match="cannot read") as caught:
        system.context().verifier()
    assert "copy the signed roster of system acme there" in caught.value.hint


def test_an_operators_key_has_to_be_private(system: FakeSystem) -> None:
    (system.directory / "alice.key").chmod(0o644)
    with pytest.raises(ContextError, match="chmod 600"):
        Admin(system.context())
    text = system.context_file.read_text()
    system.context_file.write_text(text[: text.index("[operator]")])
    with pytest.raises(ContextError, match="no operator"):
        Admin(system.context())
