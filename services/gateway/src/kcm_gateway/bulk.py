"""Encrypt and decrypt a stream of large pieces with the embedded engine, and say how it went.

``python -m kcm_gateway.bulk --config FILE --tenant T --service S`` reads standard input in pieces
of 1 MiB, encrypts every piece, decrypts the records again, compares, and prints one JSON object.
Payloads stay in this process: nothing but wrapped and sealed keys goes over the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from hashlib import sha256
from typing import Any, BinaryIO, Final

import uvloop
from kcm_bus.config import ConfigError
from kcm_crypto.secretfile import SecretFileError
from kcm_schemas.codes import KcmError

from kcm_gateway.embedded import EmbeddedGateway

PIECE: Final = 1 << 20
"""Bytes of one piece."""

TOGETHER: Final = 8
"""Pieces of one batch: bounds what lies in memory."""


async def run(config: str, tenant: str, service: str, source: BinaryIO) -> dict[str, Any]:
    """Work through ``source``; raises ``KcmError``."""
    pieces = correct = sealed_bytes = size = 0
    async with EmbeddedGateway.join(config) as member:
        while True:
            batch = [piece for _ in range(TOGETHER) if (piece := source.read(PIECE))]
            if not batch:
                break
            contexts = [(pieces + i).to_bytes(8, "big") for i in range(len(batch))]
            sealed = await member.engine.encrypt(tenant, service, batch, contexts)
            opened = await member.engine.decrypt(tenant, service, sealed.values, contexts)
            pieces += len(batch)
            size += sum(map(len, batch))
            sealed_bytes += sum(map(len, sealed.values))
            correct += sum(
                sha256(a).digest() == sha256(b).digest()
                for a, b in zip(batch, opened.values, strict=True)
            )
    return {"pieces": pieces, "bytes": size, "sealed_bytes": sealed_bytes, "correct": correct}


def main() -> int:
    """Exit 0 when every piece came back as it was, 1 otherwise, 2 for a configuration."""
    parser = argparse.ArgumentParser(prog="python -m kcm_gateway.bulk", description=__doc__)
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
