"""Other libraries at the same job, in an environment of their own (``make bench-peers``).

Run as a script by that environment's Python, so it imports nothing of this project. Speaks lines of
JSON: says who is there, then answers each ``{"peer", "operation", "octets", "records", "calls"}``
with the CPU seconds that one record took, in the same loop as everybody else's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import asherah  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
import tink  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
from tink import aead  # pyright: ignore[reportMissingImports]


class Peer(Protocol):
    """Encrypts and decrypts one record after another."""

    def encrypt(self, plaintexts: Sequence[bytes]) -> list[Any]:
        """Each record in the peer's own form."""
        ...

    def decrypt(self, records: Sequence[Any]) -> list[bytes]:
        """The plaintexts."""
        ...


class Asherah:
    """A session held open: envelope encryption in native code, keys cached."""

    def __init__(self) -> None:
        config = {
            "KMS": "static",
            "StaticMasterKeyHex": os.urandom(32).hex(),
            "Metastore": "memory",
            "ServiceName": "records",
            "ProductID": "bench",
            "EnableSessionCaching": True,
        }
        self._session = asherah.SessionFactory(config).get_session("acme")

    def encrypt(self, plaintexts: Sequence[bytes]) -> list[Any]:
        """Each record in the peer's own form."""
        encrypt = self._session.encrypt_bytes
        return [encrypt(plaintext) for plaintext in plaintexts]

    def decrypt(self, records: Sequence[Any]) -> list[bytes]:
        """The plaintexts."""
        decrypt = self._session.decrypt_bytes
        return [decrypt(record) for record in records]


class Tink:
    """Tink's AEAD: one fixed AES-256-GCM key, or an envelope around a local one."""

    def __init__(self, *, envelope: bool) -> None:
        aead.register()
        template = aead.aead_key_templates.AES256_GCM
        key = tink.new_keyset_handle(template).primitive(aead.Aead)
        self._aead = aead.KmsEnvelopeAead(template, key) if envelope else key

    def encrypt(self, plaintexts: Sequence[bytes]) -> list[Any]:
        """Each record in the peer's own form."""
        encrypt = self._aead.encrypt
        return [encrypt(plaintext, b"") for plaintext in plaintexts]

    def decrypt(self, records: Sequence[Any]) -> list[bytes]:
        """The plaintexts."""
        decrypt = self._aead.decrypt
        return [decrypt(record, b"") for record in records]


PEERS: dict[str, tuple[str, Callable[[], Peer]]] = {
    "Asherah, session held": ("asherah", Asherah),
    "Tink, fixed key": ("tink", lambda: Tink(envelope=False)),
    "Tink, local envelope": ("tink", lambda: Tink(envelope=True)),
}
"""Names, distributions and makers."""


class Worker:
    """Makes peers and records when they are first asked for, outside the measured time."""

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}
        self._plaintexts: dict[tuple[int, int], list[bytes]] = {}
        self._records: dict[tuple[str, int, int], list[Any]] = {}

    def answer(self, asked: dict[str, Any]) -> float:
        """CPU seconds of one record."""
        name: str = asked["peer"]
        octets, records, calls = (int(asked[key]) for key in ("octets", "records", "calls"))
        if name not in self._peers:
            self._peers[name] = PEERS[name][1]()
        peer, size = self._peers[name], (octets, records)
        if size not in self._plaintexts:
            self._plaintexts[size] = [os.urandom(octets) for _ in range(records)]
        plaintexts = self._plaintexts[size]
        if asked["operation"] == "encrypt":
            return _timed(lambda: peer.encrypt(plaintexts), calls) / records
        if (name, *size) not in self._records:
            self._records[name, *size] = peer.encrypt(plaintexts)
        sealed = self._records[name, *size]
        if peer.decrypt(sealed[:1]) != plaintexts[:1]:
            raise AssertionError("a record came back as something else")
        return _timed(lambda: peer.decrypt(sealed), calls) / records


def _timed(call: Callable[[], object], calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - started) / calls


def main() -> None:
    worker = Worker()
    print(json.dumps({name: version(package) for name, (package, _) in PEERS.items()}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": worker.answer(json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
