"""Keeps the replica of tenants, links and services: verified, newest revision, from the bucket."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from kcm_control.revocation import Revocations
from kcm_schemas import subjects
from kcm_schemas.registry import Link, Service, Tenant
from kcm_trust.statements import signed_by
from kcm_trust.verify import Untrusted

from kcm_bus.clock import Clock
from kcm_bus.connection import Connection
from kcm_bus.membership import Membership
from kcm_bus.ports import Entry
from kcm_bus.purging import purge_each
from kcm_bus.streams import Follower, Plainly, last

log = logging.getLogger(__name__)


class RegistryFeed:
    """Feeds ``Revocations`` with what operators signed; purges tenants that changed their link."""

    def __init__(
        self,
        connection: Connection,
        membership: Membership,
        revocations: Revocations,
        purge: Callable[[str], int],
        clock: Clock,
    ) -> None:
        self._connection: Final = connection
        self._me: Final = membership
        self._revocations: Final = revocations
        self._purge: Final = purge
        self._counted: dict[str, tuple[Entry, Tenant | Link | Service]] = {}
        """By subject, the stored records that count."""
        self._plainly: Final = Plainly(self.take)
        self._follower: Final = Follower(
            connection,
            subjects.bucket_stream(subjects.REGISTRY_BUCKET),
            subjects.bucket_all(subjects.REGISTRY_BUCKET),
            self._plainly,
            clock,
        )
        membership.rosters.listen(self._judge_again)

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
        _, before = self._counted.get(entry.subject, (entry, record))
        if record.revision >= before.revision:
            self._counted[entry.subject] = (entry, record)

    def counted(self) -> list[Entry]:
        """The stored records that were believed last, by subject."""
        return [self._counted[subject][0] for subject in sorted(self._counted)]

    def _judge_again(self, names: frozenset[str]) -> None:
        """Drop what does not count by the roster of now; read again what may count by it."""
        for subject, (entry, record) in list(self._counted.items()):
            if not signed_by(entry.data, names):
                continue
            try:
                self.verify(entry)
            except Untrusted as error:
                log.warning("a registry record is not believed any more: %s", error)
                del self._counted[subject]
                purge_each(self._purge, self._revocations.unregister(record))
        self._plainly.went_back()
        self._follower.again()

    def verify(self, entry: Entry) -> Tenant | Link | Service:
        """The record, when it says what its key says and its signer may say it."""
        noun, *rest = subjects.bucket_key(entry.subject).split(".")
        record: Tenant | Link | Service
        match noun:
            case "tenant":
                record = self._me.verifier.tenant(entry.data)
                names = [record.tenant]
            case "link":
                record = self._me.verifier.link(entry.data)
                names = [record.link]
            case "service":
                record = self._me.verifier.service(entry.data)
                names = [record.tenant, record.service]
            case _:
                raise Untrusted("no such kind of record")
        if names != rest:
            raise Untrusted("the record lies under another name")
        return record
