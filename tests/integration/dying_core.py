"""``python -m tests.integration.dying_core --config FILE``: a Core that can be told where to die.

It is the Core itself. While it serves a request to put a tenant, it counts its touches: requests to
the broker, uses of a customer's key, and each step with a file of the second key store. At the one
whose number stands in ``FILE.die`` it kills itself, before it touches; what it wrote stays written.
How many there were when the request was served stands in ``FILE.touched``.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from kcm_core.unsealer.import_guard import forbid_cloud_sdks

forbid_cloud_sdks()

# ruff: noqa: E402 - nothing may be imported before the guard stands

from kcm_core.api.registry_requests import RegistryRequests
from kcm_core.unsealer.client import Unsealer
from nats.aio.client import Client

CONFIG = Path(sys.argv[sys.argv.index("--config") + 1])
DIE, TOUCHED = CONFIG.with_suffix(".die"), CONFIG.with_suffix(".touched")
FILES = {"tempfile.mkstemp", "open", "os.link", "os.remove"}

touches: ContextVar[list[int] | None] = ContextVar("touches", default=None)


def touch() -> None:
    """Count, or die; does nothing outside of the request in question."""
    counted = touches.get()
    if counted is None:
        return
    counted[0] += 1
    if counted[0] == counted[1]:
        os.kill(os.getpid(), signal.SIGKILL)


def touching(cls: type, name: str) -> None:
    """Have a method touch before it does anything."""
    real: Callable[..., Awaitable[Any]] = getattr(cls, name)

    async def method(*args: Any, **kwargs: Any) -> Any:
        touch()
        return await real(*args, **kwargs)

    setattr(cls, name, method)


def on_audit(event: str, args: tuple[Any, ...]) -> None:
    """Touch at what is done with files of the second store."""
    if touches.get() is not None and event in FILES and "keystore" in str(args[0]):
        touch()


real_fsync, real_put = os.fsync, RegistryRequests.put_tenant


def fsync(descriptor: int) -> None:
    """Touch, and do it."""
    touch()
    real_fsync(descriptor)


async def put_tenant(self: RegistryRequests, request: Any) -> Any:
    """Count what one request touches."""
    counted = [0, int(DIE.read_text()) if DIE.exists() else 0]
    token = touches.set(counted)
    try:
        return await real_put(self, request)
    finally:
        touches.reset(token)
        TOUCHED.write_text(str(counted[0]))


os.fsync = fsync
RegistryRequests.put_tenant = put_tenant  # type: ignore[method-assign]
touching(Client, "request")
touching(Unsealer, "wrap")
touching(Unsealer, "unwrap_into")
sys.addaudithook(on_audit)

if __name__ == "__main__":
    runpy.run_module("kcm_core", run_name="__main__")
