"""One living system for all tests that only use it; those that harm it make their own."""

import pytest

from tests.integration.living import EU, Living


@pytest.fixture(scope="session")
def living():
    """Two regions, two Cores and one Gateway each, one Auditor."""
    with Living.started(applications=1) as made:
        yield made


@pytest.fixture
def fragile():
    """A system of one's own, to be harmed: one Core and one Gateway in each of two regions."""
    with Living.started(cores=1) as made:
        yield made


@pytest.fixture
def leaving():
    """A system of one's own, whose roster is to be changed."""
    with Living.started(cores=2) as made:
        yield made


@pytest.fixture
def one_core():
    """A system of one's own, to be harmed: one region with one Core and one Gateway."""
    with Living.started(regions=(EU,), cores=1) as made:
        yield made


@pytest.fixture
def two_cores():
    """A system of one's own, to be harmed: one region with two Cores and one Gateway."""
    with Living.started(regions=(EU,), cores=2) as made:
        yield made
