"""The registry of a region as its Cores maintain it: accepted once, in two stores, never set back.

An operator's statement counts from the moment at which a Core has checked it, has added its own
signed acceptance, and has stored that entry in the second store, which creates every revision only
once. From there the entry goes to the bucket, which all instances read. A Core that finds something
other than the entry that counts in the bucket (an older record, garbage, nothing) puts the known
entry back and records an incident. A Core accepts nothing below what it knew once, also after a
restart.

A Core without memory (``kcm_core.registry.memory``) reads both stores and changes nothing there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from kcm_killswitch.model.registry import Key, Record, Registry, is_key, key_of
from kcm_killswitch.replica.registry_follower import RegistryFeed
from kcm_runtime.audit.pacing import Paced
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.streams import ever_had, keep, last
from kcm_runtime.tasks import TaskSet
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Accepted, RegistryEntry
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.envelopes import statement_digest
from kcm_trust.verify import Untrusted

from kcm_core.keys.file_store import FileKeyStore
from kcm_core.registry.memory import RegistryMemory

log = logging.getLogger(__name__)

PREFIX: Final = "registry."
"""Prefix of the registry's keys in the second store, which also has the wrapped keys."""

RETRY_S: Final = 1.0
"""Seconds until a failed repair is tried again."""

LOOK_S: Final = 30.0
"""Seconds between two checks that the bucket still has every record."""

LOOKED_AT: Final = 32
"""Records that each check compares in both stores, one part after another. The bucket's count of
messages does not suffice, because an attacker can add other messages; nor do the names of files,
because a damaged file keeps its name."""

_COMMANDS: Final = {
    "tenant": "kcm tenant create",
    "link": "kcm l1 link",
    "service": "kcm service create",
}
"""The command that signs a record again, by the record's noun."""

_STREAM: Final = subjects.bucket_stream(subjects.REGISTRY_BUCKET)


class RegistryKeeper:
    """Accepts records, and repairs the bucket."""

    def __init__(
        self,
        host: Host,
        registry: Registry,
        *,
        connection: Connection,
        feed: RegistryFeed,
        directory: FileKeyStore,
        memory: RegistryMemory,
        settled: Callable[[], Awaitable[object]],
        compared: Callable[[], None],
    ) -> None:
        """``settled`` returns after this Core's lease entry shows the current registry.

        ``compared`` is called when the registry has everything that the second store has.
        """
        self._me: Final = host.me
        self._connection: Final = connection
        self._feed: Final = feed
        self._registry: Final = registry
        self._directory: Final = directory
        self._memory: Final = memory
        self._settled: Final = settled
        self._compared: Final = compared
        self._comparing = False
        self._emit: Final = host.emit
        self._wrong: dict[Key, str] = {}
        self._strange = False
        self._looked = 0
        """The number of records, in order, that the checks have covered."""
        self._stir: Final = asyncio.Event()
        self._tasks: Final = TaskSet()
        self._repairs: Final = Paced()
        feed.watch(self.wrong, memory.learned)

    async def start(self) -> None:
        """Synchronize bucket and second store, then monitor them. The feed has started."""
        while True:
            try:
                await self.reconcile()
            except (KcmError, OSError) as error:
                why = error.detail if isinstance(error, KcmError) else error.strerror
                log.error("waiting at the start: %s", why)
                await asyncio.sleep(RETRY_S)
            else:
                break
        self._memory.start()
        self._tasks.spawn(self._run())

    def close(self) -> None:
        """Stop."""
        self._tasks.close()
        self._memory.close()
        self._repairs.close()

    async def accept(self, raw: bytes, record: Record) -> None:
        """Store a verified record that this Core has checked; both stores have it on return.

        Raises ``conflict`` if another record of this revision was accepted before, and
        ``unavailable``; the record may be stored then, and the same request continues the work.
        """
        self._memory.require()
        if self._memory.unused:
            await self._first()
        entry = await self._create(raw, record)
        await self._to_bucket(key_of(record), entry)
        await self._learn(self._believe(entry), entry)
        await self._settled()

    async def _first(self) -> None:
        """Before the first record: load what the second store has, since it is older."""
        try:
            await self.reconcile()
            self._memory.require()
            await self._memory.use()
        except OSError as error:
            raise _unkept(error) from None

    def wrong(self, key: Key, what: str) -> None:
        """The bucket has something other than what counts under a key: repair it."""
        if self._tasks.closed:
            return
        if not is_key(key):
            if not self._strange:
                log.warning("the registry's bucket has what is no record: %.80r", ".".join(key))
            self._strange = True  # logged once: there may be any number of them
            return
        self._wrong.setdefault(key, what)
        self._stir.set()

    def compare(self) -> None:
        """Another instance knows a different registry: read everything again soon."""
        self._comparing = True
        self._stir.set()

    async def empty(self) -> bool:
        """Whether neither store ever had anything, as far as they show; raises ``unavailable``.

        Any stored data counts, valid or not: data that does not verify by this Core's roster may
        verify by the next one.
        """
        heads = await asyncio.to_thread(self._directory.heads, PREFIX)
        return self._feed.empty and not heads and not await ever_had(self._connection, _STREAM)

    async def reconcile(self) -> bool:
        """Synchronize the two stores; raises ``unavailable``.

        ``False`` if the second store has a record above the known revision that does not verify.
        The Core continues without it, but does not know everything.
        """
        whole = True
        heads = await asyncio.to_thread(self._directory.heads, PREFIX)
        for name, revision in heads.items():
            key = tuple(name.removeprefix(PREFIX).split("."))
            if is_key(key) and revision > self._registry.revision(key):
                await self._restore(key)
                whole = whole and revision <= self._registry.revision(key)
        for record in list(self._registry.records()):
            key = key_of(record)
            raw = self._feed.raw(key)
            if raw is not None and heads.get(PREFIX + ".".join(key), 0) < record.revision:
                await self._copy(key, record.revision, raw)
        await self._memory.keep()
        for key in self._registry.below_floor:
            log.critical(
                "the registry's %s was set back, in the bucket and the second store: nothing older "
                "is believed; restore the second store from its backup, or else repeat `%s` "
                "with a --revision above %d",
                ".".join(key),
                _COMMANDS[key[0]],
                self._registry.highest(key),
            )
            self._emit(
                EventType.REGISTRY_LOST,
                tenant=key[1] if key[0] != "link" else None,
                code=Code.UNAVAILABLE,
                detail=".".join(key),
            )
        return whole

    async def _run(self) -> None:
        while not self._tasks.closed:
            try:
                await asyncio.wait_for(self._stir.wait(), LOOK_S)
            except TimeoutError:
                await self._look_for_missing()
            self._stir.clear()
            if self._comparing:
                await self._compare()
            if not self._memory.has:
                continue  # a Core that knows the registry repairs it
            wrong, self._wrong = self._wrong, {}
            for key, what in wrong.items():
                try:
                    await self._repair(key, what)
                except Exception as error:  # noqa: BLE001 - the others must be repaired, too
                    log.warning("the registry is not repaired yet: %s", describe(error))
                    self._wrong.setdefault(key, what)
            if self._wrong:
                await asyncio.sleep(RETRY_S)
                self._stir.set()

    async def _compare(self) -> None:
        self._comparing = False
        self._feed.read_again()
        try:
            whole, why = await self.reconcile(), "the second store has a record above what is known"
        except Exception as error:  # noqa: BLE001 - it is tried again
            whole, why = False, describe(error)
        if whole:
            self._compared()
        else:
            log.warning("the registry could not be compared: %s", why)
            self._comparing = True  # at the next check: the differing Core may have ended by then

    async def _look_for_missing(self) -> None:
        """Check for an emptied bucket, which delivers nothing: it has too few records."""
        if not self._memory.has:
            self._comparing = True  # an operator may have restored the second store
            return
        try:
            info = await self._connection.jetstream().stream_info(_STREAM)
        except Exception as error:  # noqa: BLE001 - the next check follows soon
            log.warning("the registry's bucket cannot be looked at: %s", describe(error))
            return
        keys = sorted(self._feed.keys)
        if (info.state.messages or 0) < len(keys):
            for key in keys:
                self._wrong.setdefault(key, "")
        self._looked = self._looked if self._looked < len(keys) else 0
        for key in keys[self._looked : self._looked + LOOKED_AT]:
            self._wrong.setdefault(key, "")
            await self._look_at_copy(key)
        self._looked += LOOKED_AT

    async def _look_at_copy(self, key: Key) -> None:
        """Repair a damaged record in the second store; leave it unchanged if it is not damaged."""
        raw, name = self._feed.raw(key), PREFIX + ".".join(key)
        try:
            copy = await asyncio.to_thread(self._directory.latest, name)
            if raw is None or copy is None or copy.revision != self._registry.revision(key):
                return
            if copy.data == raw or self._is_record(key, copy.data):
                return
            healed = await asyncio.to_thread(
                self._directory.replace, name, copy.revision, raw, copy.data
            )
        except KcmError as error:
            log.warning("the second key store cannot be looked at: %s", error.detail)
            return
        if healed:
            self._incident(key, "the second store had a damaged record")

    def _is_record(self, key: Key, data: bytes) -> bool:
        try:
            return key_of(self._feed.verify(Entry(0, _subject(key), data))) == key
        except Untrusted:
            return False

    async def _repair(self, key: Key, what: str) -> None:
        """Store the entry that counts under its key, if something else is there."""
        raw = self._feed.raw(key)
        if raw is None:
            if not await self._restore(key):
                log.warning("the registry has a record that nobody can believe: %s", what)
            return
        stored = await last(self._connection, _STREAM, _subject(key))
        if stored is not None and stored.data == raw:
            return
        if stored is not None and stored.data and await self._known(stored):
            return  # the same record, accepted by another Core
        await self._to_bucket(key, raw)
        self._incident(key, what or "a record was missing from the bucket")

    async def _known(self, stored: Entry) -> bool:
        """Whether the stored entry counts as much as the known one, or more: it is then learned."""
        try:
            record = self._feed.verify(stored)
        except Untrusted:
            return False
        if record.revision < self._registry.revision(key_of(record)):
            return False
        await self._learn(record, stored.data)
        return True

    async def _restore(self, key: Key) -> bool:
        """Take a record that the bucket has lost from the second store."""
        copy = await asyncio.to_thread(self._directory.latest, PREFIX + ".".join(key))
        if copy is None:
            return False
        try:
            record = self._feed.verify(Entry(0, _subject(key), copy.data))
        except Untrusted as error:
            log.error("a record in the second store is not believed: %s", error)
            return False
        if self._memory.unused:
            await self._memory.lose()
        what = "the bucket had an older record than the second store, or none"
        await self._learn(record, copy.data)
        if not self._memory.has:
            self.wrong(key, what)
            return True
        try:
            await self._to_bucket(key, copy.data)
        except KcmError as error:
            # It counts here from now on; readers of the bucket differ until it is there, too.
            log.error("a record of the registry cannot be put back yet: %s", error.detail)
            self.wrong(key, what)
        else:
            self._incident(key, what)
        return True

    async def _create(self, raw: bytes, record: Record) -> bytes:
        """Create the revision in the second store, once; returns the entry that all Cores use."""
        word = Accepted(
            statement=statement_digest(read_signed(raw)),
            region=self._me.region,
            roster=self._me.verifier.roster.version,
        )
        accepted = encode(self._me.identity.sign(Kind.ACCEPTED, word))
        entry = encode(RegistryEntry(statement=raw, accepted=accepted))
        name = PREFIX + ".".join(key_of(record))
        try:
            await asyncio.to_thread(self._directory.create, name, record.revision, entry)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                raise
            made = await asyncio.to_thread(self._directory.latest, name)
            if made is None or made.revision != record.revision:
                raise KcmError(Code.CONFLICT, "a higher revision was accepted already") from None
            try:
                known = self._me.verifier.registered(made.data, self._me.region)
            except Untrusted:
                known = None
            if known != record:
                raise KcmError(
                    Code.CONFLICT, "another record of this revision was stored; take a higher one"
                ) from None
            return made.data
        return entry

    async def _copy(self, key: Key, revision: int, raw: bytes) -> None:
        if not self._memory.has:
            self._comparing = True
            return
        try:
            name = PREFIX + ".".join(key)
            await asyncio.to_thread(self._directory.create, name, revision, raw)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                log.error("the second key store lacks a record: %s", error.code.value)
                self._comparing = True  # it is checked again

    async def _to_bucket(self, key: Key, entry: bytes) -> None:
        subject = _subject(key)
        stored = await last(self._connection, _STREAM, subject)
        if stored is not None and stored.data == entry:
            return
        expected = stored.sequence if stored is not None else 0
        try:
            await keep(self._connection, _STREAM, subject, entry, expected=expected)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                raise
            again = await last(self._connection, _STREAM, subject)
            if again is None or not await self._known(again):
                raise

    async def _learn(self, record: Record, raw: bytes) -> None:
        self._feed.learn(record, raw)
        try:
            await self._memory.keep([key_of(record)])
        except OSError as error:
            raise _unkept(error) from None

    def _believe(self, entry: bytes) -> Record:
        try:
            return self._me.verifier.registered(entry, self._me.region)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None

    def _incident(self, key: Key, what: str) -> None:
        self._repairs.record("repaired", partial(self._tell_repaired, key, what))

    def _tell_repaired(self, key: Key, what: str, count: int) -> None:
        log.error("the registry was repaired (%d times): %s", count, what)
        self._emit(
            EventType.REGISTRY_REPAIRED,
            tenant=key[1] if key[0] != "link" and count == 1 else None,
            code=Code.TAMPERED,
            count=count,
            detail=f"{'.'.join(key)}: {what}",
        )


def _unkept(error: OSError) -> KcmError:
    return KcmError(Code.UNAVAILABLE, f"this Core cannot keep what it accepted: {error.strerror}")


def _subject(key: Key) -> str:
    return subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)
