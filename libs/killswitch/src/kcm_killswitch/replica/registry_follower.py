"""Maintains the replica of tenants, links and services, verified and joined, from the bucket.

The bucket is never authoritative: an entry that is older than a known one, that does not verify, or
that vanished changes nothing here. A Core is notified and puts the known entry back
(``kcm_core.registry.keeper``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import Entry, LogFollower, Subscription
from kcm_runtime.nats.stream_follower import Follower, SequentialFollower
from kcm_runtime.nats.streams import last
from kcm_schemas import subjects
from kcm_schemas.codec import decode
from kcm_schemas.registry import RegistryEntry
from kcm_trust.statements import signed_by
from kcm_trust.verify import Forged, Untrusted

from kcm_killswitch.model.registry import FORKS_MAX, Put
from kcm_killswitch.model.registry_lease import RegistryLease
from kcm_killswitch.model.registry_objects import Key, RegistryObject, key_of, object_digest
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.log_fields import of_object
from kcm_killswitch.replica.purge import purge_each

log = logging.getLogger(__name__)

Follow = Callable[[LogFollower], Subscription]
"""Delivers the entries of the bucket to a follower."""

OnLearned = Callable[[Key], None]
"""Called with the key of an entry that counts from now on."""

OnWrong = Callable[[Key, str], None]
"""Called with a key whose entry in the bucket is not the one that counts, and the reason."""


@dataclass(frozen=True, slots=True)
class _Form:
    """A verified object, and the entry that contains it."""

    obj: RegistryObject
    raw: bytes


class RegistryFollower:
    """Feeds ``Revocations`` with signed entries; purges tenants whose link changed."""

    def __init__(
        self,
        connection: Connection,
        me: InstanceContext,
        revocations: Revocations,
        purge: Callable[[str], int],
        lease: RegistryLease,
        clock: Clock,
        *,
        follow: Follow | None = None,
    ) -> None:
        """``lease`` gets the digests of the registry's shards whenever one changes.

        ``follow`` makes the follower of the bucket; by default it reads from the connection.
        """
        self._connection: Final = connection
        self._me: Final = me
        self._revocations: Final = revocations
        self._purge: Final = purge
        self._forms: dict[Key, dict[bytes, _Form]] = {}
        """By key and digest, the entries of the highest revision: all entries of a fork."""
        self._on_wrong: OnWrong = _log
        self._on_learned: OnLearned = _ignore
        self._empty = True
        self._lease: Final = lease
        self._started = False
        self._place: Final = SequentialFollower(self.receive)
        self._follower: Final = (follow or _from(connection, clock))(self._place)
        me.rosters.listen(self._judge_again)

    async def start(self) -> None:
        """Begin to follow the bucket; returns when every stored entry is known."""
        await self._follower.start()
        self._started = True
        self._lease.changed(self._revocations.registry_digests)

    async def close(self) -> None:
        """Stop following."""
        await self._follower.close()

    def read_again(self) -> None:
        """Replay the bucket from its start: another instance has an entry that is unknown here."""
        self._place.went_back()
        self._follower.again()

    def watch(self, on_wrong: OnWrong, on_learned: OnLearned) -> None:
        """Set the callbacks for a bucket entry that does not count, and for a learned entry."""
        self._on_wrong, self._on_learned = on_wrong, on_learned

    @property
    def empty(self) -> bool:
        """Whether the bucket never had any entry, valid or not, as far as it was read."""
        return self._empty

    def raw(self, key: Key) -> bytes | None:
        """The entry that counts, as stored."""
        known = self._revocations.registered(key)
        form = None if known is None else self._forms.get(key, {}).get(object_digest(known))
        return None if form is None else form.raw

    @property
    def keys(self) -> list[Key]:
        """Every key of the registry."""
        return list(self._forms)

    async def fetch(self, *key: str) -> None:
        """Read an entry from the store's leader, before a caller reports that it does not exist."""
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)
        stream = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
        stored = await last(self._connection, stream, subject)
        if stored is not None:
            self.take(stored)

    async def fetch_service(self, tenant: str, service: str) -> None:
        """The same for a service and its tenant, for those that are not known here."""
        for key in (("tenant", tenant), ("service", tenant, service)):
            if self._revocations.registered(key) is None:
                await self.fetch(*key)

    def receive(self, entry: Entry) -> None:
        """Process one message of the bucket: an entry, or the deletion of one."""
        self._empty = False
        if entry.data:
            self.take(entry)
        else:
            key = tuple(subjects.bucket_key(entry.subject).split("."))
            self._on_wrong(key, "an entry was deleted")

    def take(self, entry: Entry) -> Put | None:
        """Process one stored entry; ``None`` if it does not verify, as if it were absent."""
        self._empty = False
        key = tuple(subjects.bucket_key(entry.subject).split("."))
        if any(form.raw == entry.data for form in self._forms.get(key, {}).values()):
            return Put.SAME  # replayed, and already verified
        try:
            obj = self.verify(entry)
        except Untrusted as error:
            self._on_wrong(key, str(error))
            return None
        return self.learn(obj, entry.data)

    def learn(self, obj: RegistryObject, raw: bytes) -> Put:
        """Apply a verified object from any source; ``raw`` is the entry that contains it."""
        done, key = self._revocations.register(obj), key_of(obj)
        purge_each(self._purge, done.purge)
        if done.put in (Put.NEW, Put.FORK) and self._started:
            self._lease.changed(self._revocations.registry_digests)
        if done.put in (Put.NEW, Put.FORK):
            self._on_learned(key)
        match done.put:
            case Put.NEW:
                self._forms[key] = {object_digest(obj): _Form(obj, raw)}
            case Put.FORK:
                forms = self._forms.setdefault(key, {})
                forms[object_digest(obj)] = _Form(obj, raw)
                for digest in sorted(forms, reverse=True)[FORKS_MAX:]:
                    del forms[digest]
                self._on_wrong(key, "two entries of one revision: a fork")
            case Put.OLDER:
                self._on_wrong(key, "an older entry was brought back")
            case Put.SAME:
                forms = self._forms.setdefault(key, {})
                forms.setdefault(object_digest(obj), _Form(obj, raw))
        return done.put

    def _judge_again(self, names: frozenset[str]) -> None:
        """Drop what does not count by the current roster; replay for what may count by it."""
        dropped = False
        forms = [(key, digest) for key, known in self._forms.items() for digest in known]
        for key, digest in forms:
            form = self._forms[key][digest]
            said = decode(RegistryEntry, form.raw)
            if not (signed_by(said.statement, names) or signed_by(said.accepted, names)):
                continue
            try:
                self._me.verifier.registered(form.raw, self._me.region)
            except Untrusted as error:
                log.warning(
                    "a registry entry does not count by the new roster, and its tenants are "
                    "purged: %s",
                    error,
                    extra=fields(**of_object(key), version=self._me.rosters.version),
                )
                del self._forms[key][digest]
                if not self._forms[key]:
                    del self._forms[key]
                dropped = True
                purge_each(self._purge, self._revocations.unregister(form.obj))
        told = self._lease.dropped if dropped else self._lease.changed
        told(self._revocations.registry_digests)
        self.read_again()

    def verify(self, entry: Entry) -> RegistryObject:
        """The object of an entry with the right key and signers; raises ``Untrusted``."""
        obj = self._me.verifier.registered(entry.data, self._me.region)
        if ".".join(key_of(obj)) != subjects.bucket_key(entry.subject):
            raise Forged("the registry entry has the key of another one", ".".join(key_of(obj)))
        return obj


def _from(connection: Connection, clock: Clock) -> Follow:
    stream = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
    every = subjects.bucket_all(subjects.REGISTRY_BUCKET)
    return lambda follower: Follower(connection, stream, every, follower, clock)


def _log(key: Key, what: str) -> None:
    log.warning(
        "the registry has a %s entry that does not count: %s",
        key[0],
        what,
        extra=fields(**of_object(key)),
    )


def _ignore(_: Key) -> None:
    """Ignore the key: this instance does not maintain the bucket."""
