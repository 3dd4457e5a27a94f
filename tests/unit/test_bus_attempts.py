"""When a whole broker rejects a client: every node of its address, and no other one."""

from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import pytest
from kcm_runtime.nats.connect_failures import Attempts, Reason
from nats import errors

REJECTED = errors.Error("nats: 'Authorization Violation'")


def at(url: str) -> Any:
    """A client that tried this node."""
    return SimpleNamespace(_current_server=SimpleNamespace(uri=urlparse(url)))


def test_every_node_has_to_reject_it() -> None:
    attempts = Attempts(["tls://one:4222", "tls://two:4222"])
    for _ in range(3):
        attempts.failed(REJECTED, at("tls://one:4222"))
    attempts.failed(REJECTED, at("tls://named-by-a-hostile-node:4222"))
    attempts.failed(REJECTED, None)
    assert not attempts.rejected.is_set()
    attempts.failed(OSError(), at("tls://two:4222"))
    assert not attempts.rejected.is_set()
    attempts.failed(REJECTED, at("tls://two:4222"))
    assert attempts.rejected.is_set()
    attempts.succeeded()
    assert (attempts.rejected.is_set(), attempts.failure) == (False, None)
    attempts.failed(REJECTED, at("tls://two:4222"))
    assert not attempts.rejected.is_set()


@pytest.mark.parametrize("url", ["one", "one:4222", "nats://one"])
def test_an_address_may_lack_scheme_and_port(url: str) -> None:
    attempts = Attempts([url])
    attempts.failed(REJECTED, at("nats://one:4222"))
    assert attempts.rejected.is_set()


@pytest.mark.parametrize("bad", ["tls://one:port", "tls://[one", "", "tls://one:99999"])
def test_what_is_no_address_is_no_fault_here(bad: str) -> None:
    attempts = Attempts([bad, "tls://two:4222"])
    attempts.failed(REJECTED, at("tls://two:4222"))
    assert not attempts.rejected.is_set()
    assert attempts.failure is not None
    assert attempts.failure.reason in Reason
