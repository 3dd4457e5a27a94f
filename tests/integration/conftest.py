"""One living system for all tests that only use it; those that harm it make their own."""

import tempfile
from pathlib import Path

import pytest
from kcm_devsystem import system

from tests.integration.living import Living


def _make(**settings):
    directory = Path(tempfile.mkdtemp(prefix="kcm-test-")) / "system"
    options = system.Options(directory, die_with_parent=True, **settings)
    return Living(options, system.up(options))


@pytest.fixture(scope="session")
def living():
    """Two regions, two Cores and one Gateway each, one Auditor."""
    made = _make(applications=1)
    yield made
    system.down(made.directory, wipe=True)


@pytest.fixture
def fragile():
    """A system of one's own, to be harmed: one Core and one Gateway in each of two regions."""
    made = _make(cores=1)
    yield made
    system.down(made.directory, wipe=True)


@pytest.fixture
def leaving():
    """A system of one's own, whose roster is to be changed."""
    made = _make(cores=2)
    yield made
    system.down(made.directory, wipe=True)
