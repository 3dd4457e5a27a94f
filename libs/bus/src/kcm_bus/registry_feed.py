"""Keeps the replica of tenants, links and services: verified, newest revision, from the bucket."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from kcm_control.revocation import Revocations
from kcm_schemas import subjects
from kcm_schemas.registry import Link, Service, Tenant
from kcm_trust.verify import Untrusted, Verifier

from kcm_bus.clock import Clock
from kcm_bus.connection import Connection
from kcm_bus.ports import Entry
from kcm_bus.purging import purge_each
from kcm_bus.streams import Follower, Plainly, last

log = logging.getLogger(__name__)


class RegistryFeed:
    """Feeds ``Revocations`` with what operators signed; purges tenants that changed their link."""

    def __init__(
        self,
        connection: Connection,
        verifier: Verifier,
        revocations: Revocations,
        purge: Callable[[str], int],
        clock: Clock,
    ) -> None:
        self._connection: Final = connection
        self._verifier: Final = verifier
        self._revocations: Final = revocations
        self._purge: Final = purge
        self._follower: Final = Follower(
            connection,
            subjects.bucket_stream(subjects.REGISTRY_BUCKET),
            subjects.bucket_all(subjects.REGISTRY_BUCKET),
            Plainly(self.take),
            clock,
        )

    async def start(self) -> None:
        """Begin, and return once everything stored is known."""
        await self._follower.start()

    async def close(self) -> None:
        """Stop following."""
        await self._follower.close()

    async def fetch(self, *key: str) -> None:
        """Take a record from the store's leader, before somebody says that it does not exist."""
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)
        stream = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
        stored = await last(self._connection, stream, subject)
        if stored is not None:
            self.take(stored)

    def take(self, entry: Entry) -> None:
        """Take one stored record; what cannot be verified is as good as absent."""
        try:
            record = self.verify(entry)
        except Untrusted as error:
            log.warning("a registry record was not believed: %s", error)
            return
        purge_each(self._purge, self._revocations.register(record))

    def verify(self, entry: Entry) -> Tenant | Link | Service:
        """The record, when it says what its key says and its signer may say it."""
        noun, *rest = subjects.bucket_key(entry.subject).split(".")
        record: Tenant | Link | Service
        match noun:
            case "tenant":
                record = self._verifier.tenant(entry.data)
                names = [record.tenant]
            case "link":
                record = self._verifier.link(entry.data)
                names = [record.link]
            case "service":
                record = self._verifier.service(entry.data)
                names = [record.tenant, record.service]
            case _:
                raise Untrusted("no such kind of record")
        if names != rest:
            raise Untrusted("the record lies under another name")
        return record
