"""Encrypt and decrypt a stream of large pieces with the embedded engine, and report the outcome.

``python -m kcm_gateway.selftest --config FILE --tenant T --service S`` reads standard input in
pieces of 1 MiB, encrypts every piece, decrypts the records, compares, and prints one JSON object.
Payloads stay in this process: only wrapped and sealed keys go over the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from typing import Any, BinaryIO, Final, TypeVar

import uvloop
from kcm_runtime.clock import Clock, SystemClock
from kcm_runtime.config import ConfigError
from kcm_runtime.files.secret_file import SecretFileError
from kcm_schemas.codes import KcmError

from kcm_gateway.embedded import EmbeddedGateway

PIECE: Final = 1 << 20
"""Bytes of one piece."""

TOGETHER: Final = 8
"""Pieces of one batch: bounds the memory."""

PATIENCE_S: Final = 10.0
"""Seconds for which a batch is retried after a transient failure, such as a lost connection, which
must not end a long stream."""

PAUSE_S: Final = 0.2
"""Seconds between two attempts."""

Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")


async def patiently(
    call: Callable[[], Awaitable[T]], clock: Clock, sleep: Sleep = asyncio.sleep
) -> T:
    """Return the result of ``call``, with retries for ``PATIENCE_S`` while they can help.

    A failed call has no output, so it can be repeated. Raises its last ``KcmError``.
    """
    until = clock.elapsed() + PATIENCE_S
    while True:
        try:
            return await call()
        except KcmError as error:
            if not error.retryable or clock.elapsed() + PAUSE_S >= until:
                raise
        await sleep(PAUSE_S)


async def run(config: str, tenant: str, service: str, source: BinaryIO) -> dict[str, Any]:
    """Process ``source``; raises ``KcmError``."""
    pieces = correct = sealed_bytes = size = 0
    clock = SystemClock()
    async with EmbeddedGateway.join(config) as member:
        while True:
            batch = [piece for _ in range(TOGETHER) if (piece := source.read(PIECE))]
            if not batch:
                break
            contexts = [(pieces + i).to_bytes(8, "big") for i in range(len(batch))]
            seal = partial(member.engine.encrypt, tenant, service, batch, contexts)
            sealed = await patiently(seal, clock)
            decrypt = partial(member.engine.decrypt, tenant, service, sealed.values, contexts)
            opened = await patiently(decrypt, clock)
            pieces += len(batch)
            size += sum(map(len, batch))
            sealed_bytes += sum(map(len, sealed.values))
            correct += sum(
                sha256(a).digest() == sha256(b).digest()
                for a, b in zip(batch, opened.values, strict=True)
            )
    return {"pieces": pieces, "bytes": size, "sealed_bytes": sealed_bytes, "correct": correct}


def main() -> int:
    """Return 0 if every piece was restored, 1 otherwise, 2 for a bad configuration."""
    parser = argparse.ArgumentParser(prog="python -m kcm_gateway.selftest", description=__doc__)
    parser.add_argument("--config", required=True, help="a Gateway's TOML file")
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--service", required=True)
    given = parser.parse_args()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            told = runner.run(run(given.config, given.tenant, given.service, sys.stdin.buffer))
    except (ConfigError, SecretFileError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KcmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if told["correct"] == told["pieces"] else 1


if __name__ == "__main__":
    sys.exit(main())
