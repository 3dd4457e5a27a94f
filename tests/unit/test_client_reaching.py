"""Why a broker is not reached: each reason has its own text, with the address."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm._internal.client_context import ClientContext, ContextError
from kcm._internal.transport import open_nats
from kcm.errors import Unavailable
from kcm_runtime.config import BusAddress

URL = "nats://broker.example:4222"


def raising(error: Exception) -> Callable[..., object]:
    async def connect(host: str, port: int) -> None:
        raise error

    return connect


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            socket.gaierror(-2, "x"),
            f"the name broker.example of the broker at {URL} does not resolve",
        ),
        (TimeoutError(), f"the broker at {URL} does not reply within 5 s"),
        (ConnectionRefusedError(111, "x"), f"no program listens at {URL}: Connection refused"),
        (OSError(113, "x"), f"no program listens at {URL}: No route to host"),
        (OSError("x"), f"no program listens at {URL}"),
    ],
)
async def test_why_a_broker_is_not_reached_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, text: str
) -> None:
    monkeypatch.setattr(asyncio, "open_connection", raising(error))
    address = BusAddress(url=URL, user="app", password_file=tmp_path / "none")
    with pytest.raises(Unavailable) as caught:
        await open_nats(address, "test")
    assert caught.value.detail == text


def test_a_context_that_is_no_text_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "context"
    file.write_bytes(b'system = "\xff"')
    with pytest.raises(ContextError, match="context is not UTF-8 text"):
        ClientContext.load(file)
