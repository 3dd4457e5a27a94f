"""Operators' requests to a Core of the rig, signed as ``kcm`` signs them."""

import itertools
from hashlib import sha256

from kcm_schemas import limits, subjects
from kcm_schemas.admin.requests import CLEAR, AdminRequest, PutStatement
from kcm_schemas.admin.tenants import TenantListQuery
from kcm_schemas.app import App
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.registry import Link, Service, Tenant
from kcm_schemas.signed import Kind

from tests.unit.core_rig import LINK, SERVICE, TENANT, VERIFIER, signed

KINDS = {Tenant: Kind.TENANT, Link: Kind.LINK, Service: Kind.SERVICE, App: Kind.APP}
FIRST_PAGE = TenantListQuery(after="", limit=limits.PAGE_ROWS_MAX)

ids = itertools.count(1)


def request(
    core, noun, verb, payload, *, signer="admin", region="eu", ahead_ms=5000, incarnation=None
):
    """A signed request for this incarnation of a Core, or for any Core if it is in clear."""
    in_clear = (noun, verb) in CLEAR
    body = AdminRequest(
        region=region, noun=noun, verb=verb,
        instance=None if in_clear else core.me.name,
        incarnation=None if in_clear else incarnation or core.me.incarnation,
        request_id=next(ids).to_bytes(16, "big"),
        deadline_ms=core.world.clock.unix_ms() + ahead_ms, payload=encode(payload),
    )  # fmt: skip
    return signed(Kind.ADMIN, body, signer)


def place(core, noun, verb):
    """The subject of a request to this Core."""
    if (noun, verb) in CLEAR:
        return subjects.admin("eu", noun, verb)
    return subjects.admin_at("eu", noun, verb, core.me.name)


async def ask(core, raw, noun, verb):
    """The code of the signed answer, and its payload."""
    answer = await core.admin.handle(place(core, noun, verb), raw)
    reply, by = VERIFIER.admin_reply(answer)
    assert by.instance == core.me.name
    assert reply.request == sha256(raw).digest()
    return reply.code, reply.payload


async def put(core, record, *, author="admin", **settings):
    kind = KINDS[type(record)]
    noun, statement = kind.value, PutStatement(statement=signed(kind, record, author))
    raw = request(core, noun, "put", statement, **settings)
    return (await ask(core, raw, noun, "put"))[0]


async def said(core, record):
    """The code and the text of the answer to a record that is put."""
    kind = KINDS[type(record)]
    statement = PutStatement(statement=signed(kind, record, "admin"))
    raw = request(core, kind.value, "put", statement)
    reply, _ = VERIFIER.admin_reply(await core.admin.handle(place(core, kind.value, "put"), raw))
    return reply.code, reply.detail


async def put_all(core):
    return [await put(core, record) for record in (LINK, TENANT, SERVICE)]


async def page(core, query, noun="tenant", verb="list"):
    code, payload = await ask(core, request(core, noun, verb, query), noun, verb)
    assert code is Code.OK
    return payload
