"""Everything here runs in virtual time."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.virtual import VirtualLoop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """Tests of this directory get a loop whose time jumps."""
    return {"virtual": VirtualLoop}
