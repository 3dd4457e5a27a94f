"""The registry of a region, as its Cores keep it: accepted once, in two stores, never set back.

What an operator signed counts from the moment at which a Core has checked it, put its own word
beside it, and made that entry in the second store, where every revision is made once. From there it
goes to the bucket, from which everybody reads. A Core that finds something else in the bucket than
what counts (an older record, garbage, nothing) puts the known one back and records an incident;
what this Core knew once it believes nothing below, after a restart too.

A Core without memory (``kcm_core.registry.memory``) reads what both stores have and changes nothing
there.
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
from kcm_runtime.audit.port import Emit
from kcm_runtime.error_text import describe
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.streams import ever_had, keep, last
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
"""Before the keys of the registry in the second store, which has the wrapped keys, too."""

RETRY_S: Final = 1.0
"""Seconds after which a repair that failed is tried again."""

LOOK_S: Final = 30.0
"""Seconds between two looks whether the bucket still has every record."""

LOOKED_AT: Final = 32
"""Records that each look compares in both stores, one part after another: what somebody put beside
them keeps a bucket's count of messages up, and a damaged file has its name still."""

_COMMANDS: Final = {
    "tenant": "kcm tenant create",
    "link": "kcm l1 link",
    "service": "kcm service create",
}
"""What signs a record anew, by its noun."""

_STREAM: Final = subjects.bucket_stream(subjects.REGISTRY_BUCKET)


class RegistryKeeper:
    """Accepts records, and repairs what the bucket has."""

    def __init__(
        self,
        *,
        membership: InstanceContext,
        connection: Connection,
        feed: RegistryFeed,
        registry: Registry,
        directory: FileKeyStore,
        memory: RegistryMemory,
        settled: Callable[[], Awaitable[object]],
        compared: Callable[[], None],
        emit: Emit,
    ) -> None:
        """``settled`` returns once this Core's lease entry says what the registry is now.

        ``compared`` is told that the registry has everything that the second store has.
        """
        self._me: Final = membership
        self._connection: Final = connection
        self._feed: Final = feed
        self._registry: Final = registry
        self._directory: Final = directory
        self._memory: Final = memory
        self._settled: Final = settled
        self._compared: Final = compared
        self._comparing = False
        self._emit: Final = emit
        self._wrong: dict[Key, str] = {}
        self._strange = False
        self._looked = 0
        """How many records, in order, the last look has come to."""
        self._stir: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._repairs: Final = Paced()
        feed.watch(self.wrong, memory.learned)

    async def start(self) -> None:
        """Bring bucket and second store to the same, then watch them. The feed has started."""
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
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop."""
        self._closing = True
        self._memory.close()
        self._repairs.close()
        if self._task is not None:
            self._task.cancel()

    async def accept(self, raw: bytes, record: Record) -> None:
        """Store a verified record that this Core has checked; in both stores when this returns.

        Raises ``conflict`` when another record of this revision was accepted before, and
        ``unavailable``; it may be stored then, and the same again goes on.
        """
        self._memory.require()
        if self._memory.unused:
            await self._first()
        entry = await self._create(raw, record)
        await self._to_bucket(key_of(record), entry)
        await self._learn(self._believe(entry), entry)
        await self._settled()

    async def _first(self) -> None:
        """Before the first record: what the second store has by now was there before."""
        try:
            await self.reconcile()
            self._memory.require()
            await self._memory.use()
        except OSError as error:
            raise _unkept(error) from None

    def wrong(self, key: Key, what: str) -> None:
        """The bucket has something else than what counts under a key: see to it."""
        if self._closing:
            return
        if not is_key(key):
            if not self._strange:
                log.warning("the registry's bucket has what is no record: %.80r", ".".join(key))
            self._strange = True  # said once: there may be any number of them
            return
        self._wrong.setdefault(key, what)
        self._stir.set()

    def compare(self) -> None:
        """Somebody knows another registry: read everything again, soon."""
        self._comparing = True
        self._stir.set()

    async def empty(self) -> bool:
        """Whether neither store ever had anything, as far as they say; raises ``unavailable``.

        Whatever lies there is something: what cannot be believed by the roster that this Core has
        may be believed by the next one.
        """
        heads = await asyncio.to_thread(self._directory.heads, PREFIX)
        return self._feed.empty and not heads and not await ever_had(self._connection, _STREAM)

    async def reconcile(self) -> bool:
        """Give each store what the other one has; raises ``unavailable``.

        ``False`` when the second store has a higher record than is known that cannot be believed.
        A Core works on without it, but does not know everything.
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
        while not self._closing:
            try:
                await asyncio.wait_for(self._stir.wait(), LOOK_S)
            except TimeoutError:
                await self._look_for_missing()
            self._stir.clear()
            if self._comparing:
                await self._compare()
            if not self._memory.has:
                continue  # what is wrong is repaired by whoever knows what is right
            wrong, self._wrong = self._wrong, {}
            for key, what in wrong.items():
                try:
                    await self._repair(key, what)
                except Exception as error:  # noqa: BLE001 - the others have to be repaired, too
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
            self._comparing = True  # at the next look: whoever differed may be gone by then

    async def _look_for_missing(self) -> None:
        """A bucket that was emptied delivers nothing: it has fewer records than are known."""
        if not self._memory.has:
            self._comparing = True  # an operator may have restored the second store
            return
        try:
            info = await self._connection.jetstream().stream_info(_STREAM)
        except Exception as error:  # noqa: BLE001 - the next look is soon
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
        """Heal a record in the second store that is damaged; what is no damage is left alone."""
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
        """Put what counts under its key, when something else is there."""
        raw = self._feed.raw(key)
        if raw is None:
            if not await self._restore(key):
                log.warning("the registry has a record that nobody can believe: %s", what)
            return
        stored = await last(self._connection, _STREAM, _subject(key))
        if stored is not None and stored.data == raw:
            return
        if stored is not None and stored.data and await self._known(stored):
            return  # the same record, with another Core's word
        await self._to_bucket(key, raw)
        self._incident(key, what or "a record was missing from the bucket")

    async def _known(self, stored: Entry) -> bool:
        """Whether what is stored counts as much as what is known, or more: then it is learned."""
        try:
            record = self._feed.verify(stored)
        except Untrusted:
            return False
        if record.revision < self._registry.revision(key_of(record)):
            return False
        await self._learn(record, stored.data)
        return True

    async def _restore(self, key: Key) -> bool:
        """Take a record from the second store, where the bucket has lost it."""
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
            # It counts from now on, here; whoever reads the bucket differs until it is there, too.
            log.error("a record of the registry cannot be put back yet: %s", error.detail)
            self.wrong(key, what)
        else:
            self._incident(key, what)
        return True

    async def _create(self, raw: bytes, record: Record) -> bytes:
        """Make the revision in the second store, once; returns the entry that everybody uses."""
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
                self._comparing = True  # it is looked at again

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
