"""Operators' requests: each is signed, and each answer is signed.

The region, noun and verb in the request must be those of its subject, so that a request that was
signed for one place has no effect in another. A subject may also name this Core.

Puts are idempotent: the same record again succeeds, and another one under the same name is a
conflict. A stored record that does not verify (any more) counts as absent, and may be replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.model.registry import REVISION_STEP_MAX, Record, Registry, key_of, replaces
from kcm_killswitch.replica.registry_follower import RegistryFeed
from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.audit.repeat_counter import Repeats
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.requests import Asked, check_deadline
from kcm_schemas import subjects
from kcm_schemas.admin.holds import HoldPageQuery, HoldPrefix, HoldQuery, PreviewQuery
from kcm_schemas.admin.links import LinkListQuery
from kcm_schemas.admin.requests import AdminReply, AdminRequest, Empty, PutStatement
from kcm_schemas.admin.tenants import (
    ServiceListQuery,
    TenantListQuery,
    TenantQuery,
    TenantShowQuery,
)
from kcm_schemas.audit import EventType
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link
from kcm_schemas.roster import OperatorRole
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted, majority_is_possible

from kcm_core.api.read_only import LOOKS
from kcm_core.api.request_events import requested, type_of
from kcm_core.api.tenant_list import TenantList
from kcm_core.keys.creation import KeyCreator
from kcm_core.keys.root_rewrap import RootRewrapper
from kcm_core.registry.keeper import RegistryKeeper
from kcm_core.registry.memory import RegistryMemory
from kcm_core.root_keys.link_validation import LinkValidator

S = TypeVar("S")
T = TypeVar("T")

Handler = Callable[[AdminRequest], Awaitable[Message]]
NamedHandler = Callable[[AdminRequest, str], Awaitable[Message]]
"""A handler that also gets the operator's name."""
NamedVerb = tuple[frozenset[OperatorRole], NamedHandler]
"""The roles that may make the request, and its handler."""

REMEMBERING: Final = frozenset(
    {("tenant", "put"), ("link", "put"), ("service", "put"), ("roster", "signed")}
)
"""Requests that a Core without memory of its region's registry refuses: its answer may depend on
records that it does not know."""

ASKED_MAX: Final = 1024
"""Requests of one operator that are remembered until their deadlines, a minute at most: 17 a
second."""

ANSWER_MAX: Final = 16 * 1024
"""Bytes of an answer that is remembered with its request. A longer answer is made again for a copy
of the request: it answers a kill, which is placed once, however often it is ordered."""


@dataclass(frozen=True, slots=True)
class _Made:
    """The outcome of a request, and its answer if a copy of the request gets the same one."""

    code: Code
    answer: bytes


class Admin:
    """Serves ``kcm.v1.<region>.admin.<noun>.<verb>``, with or without this Core's name appended."""

    def __init__(
        self,
        *,
        membership: InstanceContext,
        feed: RegistryFeed,
        registry: Registry,
        listing: TenantList,
        maker: KeyCreator,
        linker: LinkValidator,
        relinker: RootRewrapper,
        keeper: RegistryKeeper,
        memory: RegistryMemory,
        kills: HoldCommands,
        emit: Emit,
        clock: Clock,
    ) -> None:
        self._me: Final = membership
        self._feed: Final = feed
        self._registry: Final = registry
        self._listing: Final = listing
        self._maker: Final = maker
        self._linker: Final = linker
        self._relinker: Final = relinker
        self._keeper: Final = keeper
        self._memory: Final = memory
        self._kills: Final = kills
        self._emit: Final = emit
        self._repeats: Final = Repeats(emit)
        self._refusals: Final = RejectionLog("admin", emit)
        self._clock: Final = clock
        self._asked: Final[Asked[_Made]] = Asked(ASKED_MAX)
        self._running: Final[dict[bytes, asyncio.Task[bytes]]] = {}
        """Requests in progress, by digest; their number is limited by the endpoints."""
        admin, security = OperatorRole.ADMIN, OperatorRole.SECURITY
        self._verbs: Final[dict[tuple[str, str], tuple[frozenset[OperatorRole], Handler]]] = {
            ("tenant", "put"): (frozenset({admin}), self._put_tenant),
            ("tenant", "list"): (frozenset({admin, security}), self._list_tenants),
            ("tenant", "find"): (frozenset({admin, security}), self._find_tenant),
            ("tenant", "show"): (frozenset({admin, security}), self._show_tenant),
            ("link", "put"): (frozenset({admin}), self._put_link),
            ("link", "list"): (frozenset({admin, security}), self._list_links),
            ("service", "put"): (frozenset({admin}), self._put_service),
            ("service", "list"): (frozenset({admin, security}), self._list_services),
            ("hold", "put"): (frozenset({security}), self._put_hold),
            ("hold", "status"): (frozenset({admin, security}), self._hold_status),
            ("hold", "show"): (frozenset({admin, security}), self._show_hold),
            ("hold", "list"): (frozenset({admin, security}), self._list_holds),
            ("hold", "preview"): (frozenset({admin, security}), self._preview),
        }
        self._named: Final[dict[tuple[str, str], NamedVerb]] = {}

    def serve(self, noun: str, verbs: Mapping[str, Handler]) -> None:
        """Serve further verbs, for an operator with any role."""
        for verb, handler in verbs.items():
            self._verbs[noun, verb] = (frozenset(OperatorRole), handler)

    def serve_named(self, noun: str, verbs: Mapping[str, NamedVerb]) -> None:
        """Serve further verbs whose handlers need the operator's name."""
        for verb, served in verbs.items():
            self._named[noun, verb] = served

    def close(self) -> None:
        """Record the repeated and refused requests that are only counted so far."""
        self._repeats.close()
        self._refusals.close()

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve one request. Only a refusal of an unverified request has no signature.

        The same request gets the same answer: a client repeats an unanswered request, because the
        Core that received it may have died. A request is recorded once. A copy that is too old, or
        that was signed for another place, is not recorded, because an attacker may have sent it.
        """
        if not self._me.acts:
            raise KcmError(Code.UNAVAILABLE, "this Core is retired; ask another one")
        try:
            request, operator, roles = self._me.verifier.admin(body)
        except Untrusted as error:
            self._refusals.record(error)
            raise KcmError(Code.FORBIDDEN, str(error)) from None
        digest = sha256(body).digest()
        try:
            self._check(subject, request)
        except KcmError as error:
            self._refusals.record(error)
            return self._signed(digest, error.code, error.detail)
        made = self._asked.get(operator, digest)
        if made is not None and made.answer:
            return made.answer
        running = self._running.get(digest)
        if running is None:
            work = self._answer(request, operator, roles, digest)
            running = self._running[digest] = asyncio.get_running_loop().create_task(work)
            running.add_done_callback(lambda _: self._running.pop(digest))
        return await asyncio.shield(running)

    def _check(self, subject: str, request: AdminRequest) -> None:
        """Refuse a request that was signed for another place or time."""
        place = self._me.region, request.noun, request.verb
        here = (subjects.admin(*place), subjects.admin_at(*place, self._me.name))
        if request.region != self._me.region or subject not in here:
            raise KcmError(Code.FORBIDDEN, "the request was signed for another place")
        check_deadline(request.deadline_ms, self._clock.unix_ms())

    async def _answer(
        self, request: AdminRequest, operator: str, roles: frozenset[OperatorRole], digest: bytes
    ) -> bytes:
        code, detail, payload = Code.OK, "", b""
        try:
            payload = encode(await self._serve(request, operator, roles))
        except KcmError as error:
            code, detail = error.code, error.detail
        event, what = type_of(request), requested(request)
        bounded = code is not Code.OK or event in LOOKS
        made = self._asked.get(operator, digest)
        if made is None or made.code is not code:
            if bounded:
                self._repeats.record(event, operator, what, code, detail)
            else:
                self._emit(event, **what, actor=operator)
        answer = self._signed(digest, code, detail, payload)
        kept = _Made(code, b"" if bounded or len(answer) > ANSWER_MAX else answer)
        self._asked.add(operator, digest, request.deadline_ms, self._clock.unix_ms(), kept)
        return answer

    def _signed(self, digest: bytes, code: Code, detail: str, payload: bytes = b"") -> bytes:
        reply = AdminReply(request=digest, code=code, detail=detail, payload=payload)
        return encode(self._me.identity.sign(Kind.ADMIN_REPLY, reply))

    async def _serve(
        self, request: AdminRequest, operator: str, roles: frozenset[OperatorRole]
    ) -> Message:
        what = (request.noun, request.verb)
        named, known = self._named.get(what), self._verbs.get(what)
        allowed = named[0] if named else known[0] if known else None
        if allowed is None:
            raise KcmError(Code.MALFORMED, "no such noun and verb")
        if not roles & allowed:
            has = " and ".join(sorted(role.value for role in roles)) or "none"
            takes = " or ".join(sorted(role.value for role in allowed))
            raise KcmError(
                Code.FORBIDDEN,
                f"{request.noun} {request.verb} takes the role {takes}; your roles: {has}",
            )
        if what in REMEMBERING:
            self._memory.require()
        if named:
            return await named[1](request, operator)
        return await self._verbs[what][1](request)

    async def _put_link(self, request: AdminRequest) -> Message:
        raw = decode(PutStatement, request.payload).statement
        link = _believed(self._me.verifier.link, raw)
        view = await self._linker.check(link)
        await self._put(raw, link)
        self._emit(
            EventType.LINK_PUT,
            target=f"link {link.link}",
            detail=f"{view.mechanism} as {view.principal}",
        )
        return view

    async def _put_tenant(self, request: AdminRequest) -> Message:
        raw = decode(PutStatement, request.payload).statement
        tenant = _believed(self._me.verifier.tenant, raw)
        if self._me.region not in tenant.regions:
            raise KcmError(Code.WRONG_REGION, "the tenant is not to be served in this region")
        if not majority_is_possible(tenant):
            raise KcmError(Code.MALFORMED, "a majority needs three regions; with two, take all")
        link = self._registry.link(tenant.link) or await self._read_link(tenant.link)
        await self._expect(tenant)
        # Another Core may have just moved the tenant.
        await self._feed.fetch("tenant", tenant.tenant)
        await self._relinker.prepare(tenant, link)
        await self._maker.root(tenant, link)
        await self._put(raw, tenant)
        self._emit(EventType.TENANT_CREATE, tenant=tenant.tenant, detail=f"link {tenant.link}")
        await self._relinker.finish(tenant)
        return Empty()

    async def _put_service(self, request: AdminRequest) -> Message:
        raw = decode(PutStatement, request.payload).statement
        service = _believed(self._me.verifier.service, raw)
        if self._registry.tenant(service.tenant) is None:
            await self._feed.fetch("tenant", service.tenant)
        await self._expect(service)
        await self._maker.service(service)
        await self._put(raw, service)
        return Empty()

    async def _list_tenants(self, request: AdminRequest) -> Message:
        return self._listing.tenants(decode(TenantListQuery, request.payload))

    async def _list_links(self, request: AdminRequest) -> Message:
        return self._listing.links(decode(LinkListQuery, request.payload))

    async def _find_tenant(self, request: AdminRequest) -> Message:
        return await self._listing.tenant(decode(TenantQuery, request.payload).tenant)

    async def _show_tenant(self, request: AdminRequest) -> Message:
        query = decode(TenantShowQuery, request.payload)
        return await self._listing.show(query, request.deadline_ms)

    async def _list_services(self, request: AdminRequest) -> Message:
        return await self._listing.services(decode(ServiceListQuery, request.payload))

    async def _put_hold(self, request: AdminRequest) -> Message:
        raw = decode(PutStatement, request.payload).statement
        return await self._kills.place(raw, request.deadline_ms)

    async def _hold_status(self, request: AdminRequest) -> Message:
        hold_id = decode(HoldQuery, request.payload).hold_id
        return await self._kills.status(hold_id, request.deadline_ms)

    async def _list_holds(self, request: AdminRequest) -> Message:
        return await self._kills.holds.page(decode(HoldPageQuery, request.payload))

    async def _show_hold(self, request: AdminRequest) -> Message:
        return await self._kills.holds.find(decode(HoldPrefix, request.payload).prefix)

    async def _preview(self, request: AdminRequest) -> Message:
        query = decode(PreviewQuery, request.payload)
        return await self._kills.preview(
            query.scope, query.target, request.deadline_ms, instances=query.instances
        )

    async def _expect(self, record: Record) -> None:
        """Raise ``conflict`` if another record has this name and this one may not replace it.

        The same record again is accepted: an operator may sign it twice.
        """
        await self._feed.fetch(*key_of(record))
        known = self._registry.known(key_of(record))
        if known not in (None, record) and not replaces(known, record):
            raise KcmError(Code.CONFLICT, _difference(known, record))
        most = self._registry.highest(key_of(record)) + REVISION_STEP_MAX
        if record.revision > most:
            raise KcmError(
                Code.MALFORMED,
                f"revision {record.revision} is too far above the last one; take at most {most}",
            )

    async def _put(self, raw: bytes, record: Record) -> None:
        await self._expect(record)
        await self._keeper.accept(raw, record)

    async def _read_link(self, name: str) -> Link:
        await self._feed.fetch("link", name)
        link = self._registry.link(name)
        if link is None:
            raise KcmError(Code.UNKNOWN_LINK, f"this region has no link {name}")
        return link


def _difference(known: Record | None, new: Record) -> str:
    """The reason why a record may not replace the known record of the same name."""
    noun, *names = key_of(new)
    exists = f"the {noun} {'/'.join(names)} exists already"
    if isinstance(known, Link) and isinstance(new, Link) and known.uri != new.uri:
        return f"{exists}, with another URI"
    if known is None or new.revision < known.revision:
        return f"{exists}, with a higher revision than {new.revision}"
    fields = [name for name in type(new).model_fields if name != "revision"]
    other = [name for name in fields if getattr(known, name) != getattr(new, name)]
    return f"{exists}, with revision {known.revision}, and differs in: {', '.join(other)}"


def _believed(verify: Callable[[S], T], raw: S) -> T:
    try:
        return verify(raw)
    except Untrusted as error:
        raise KcmError(Code.FORBIDDEN, str(error)) from None
