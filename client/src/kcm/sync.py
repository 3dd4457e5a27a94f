"""The client for programs without an event loop: the same calls, blocking, from any thread.

One thread runs the loop; every call is handed to it. After a fork that thread exists in the parent
only, so a child has to connect for itself.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from kcm_runtime.ownership import AfterFork, Closed
from kcm_schemas.data import DekScope

from kcm._internal import client as aio
from kcm._internal.batches import BatchResult
from kcm._internal.client import DEADLINE_S
from kcm._internal.client_context import ClientContext
from kcm._internal.counts import Counts
from kcm._internal.rpc import Environment
from kcm._internal.transport import Opener, open_nats

T = TypeVar("T")


class Client:
    """``kcm.Client`` without ``await``. Threads may share it; close it, or use ``with``."""

    def __init__(
        self,
        context: ClientContext | str | Path | None = None,
        region: str | None = None,
        *,
        opener: Opener = open_nats,
        around: Environment | None = None,
    ) -> None:
        """Connect; raises ``ContextError`` or ``Unavailable``."""
        self._pid: Final = os.getpid()
        self._loop: Final = asyncio.new_event_loop()
        self._thread: Final = threading.Thread(
            target=self._loop.run_forever, name="kcm-client", daemon=True
        )
        self._thread.start()
        self._entered: Final[AbstractAsyncContextManager[aio.Client]] = aio.Client.connect(
            context, region, opener=opener, around=around
        )
        try:
            self._client: Final = self._call(self._entered.__aenter__())
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish, disconnect and end the thread. More than once is fine."""
        if self._loop.is_closed() or os.getpid() != self._pid:
            return  # after a fork, thread and connection are the parent's
        try:
            self._call(self._entered.__aexit__(None, None, None))
        finally:
            self._end()

    @property
    def counts(self) -> Counts:
        """As ``kcm.Client.counts``."""
        return self._client.counts

    def encrypt(
        self,
        tenant: str,
        service: str,
        plaintexts: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        *,
        dek_scope: DekScope = "record",
        deadline_s: float = DEADLINE_S,
    ) -> BatchResult:
        """As ``kcm.Client.encrypt``."""
        return self._call(
            self._client.encrypt(
                tenant, service, plaintexts, contexts, dek_scope=dek_scope, deadline_s=deadline_s
            )
        )

    def decrypt(
        self,
        tenant: str,
        service: str,
        records: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> BatchResult:
        """As ``kcm.Client.decrypt``."""
        return self._call(
            self._client.decrypt(tenant, service, records, contexts, deadline_s=deadline_s)
        )

    def encrypt_one(
        self,
        tenant: str,
        service: str,
        plaintext: bytes,
        context: bytes = b"",
        *,
        deadline_s: float = DEADLINE_S,
    ) -> bytes:
        """As ``kcm.Client.encrypt_one``: calls of several threads share a message."""
        return self._call(
            self._client.encrypt_one(tenant, service, plaintext, context, deadline_s=deadline_s)
        )

    def decrypt_one(
        self,
        tenant: str,
        service: str,
        encrypted: bytes,
        context: bytes = b"",
        *,
        deadline_s: float = DEADLINE_S,
    ) -> bytes:
        """As ``kcm.Client.decrypt_one``."""
        return self._call(
            self._client.decrypt_one(tenant, service, encrypted, context, deadline_s=deadline_s)
        )

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if os.getpid() != self._pid:
            work.close()
            raise AfterFork(
                f"the client was made in process {self._pid} and is used in its child"
                f" {os.getpid()}; connect in each process after the fork"
            )
        if self._loop.is_closed():
            work.close()
            raise Closed("the client is closed; connect again")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupted caller waits no longer, so neither does the loop
            raise

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
