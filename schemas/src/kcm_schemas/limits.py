"""Every bound of the wire in one place, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

BODY_MAX: Final = 900 * 1024
"""Bytes of body plus headers: above the server's ``max_payload`` a client loses its connection."""

RECORDS_MAX: Final = 1024
"""Records in one request: bounds the work that one message can ask for."""

KEYS_MAX: Final = 1024
"""Keys in one wrap or unwrap: as many as records in one request, and a Core does nothing else
meanwhile."""

PREFIXES_MAX: Final = 256
"""Different nonce prefixes in one unwrap: each costs a derivation, as much as several keys."""

PREFIX_SIZE: Final = 12
"""Bytes of a wrapped key's nonce that a batch of wraps shares."""

APP_CONTEXT_MAX: Final = 4096
"""Bytes of context that an application may bind to one record."""

DEADLINE_MAX_MS: Final = 60_000
"""Milliseconds that a deadline may lie ahead: further away it protects nobody."""

ITEMS_MAX: Final = 8192
"""Items of any list of a message: msgpack allocates what a list declares, once per nesting level,
before it sees whether the items follow."""

FIELDS_MAX: Final = 64
"""Fields of any message."""

CONTAINERS_MAX: Final = 65_536
"""Lists and maps of any message: a roster of ten thousand instances with a few grants each. What a
kind of message can have by its fields is less, mostly a handful."""

SIGNED_HOLD_MAX: Final = 16 * 1024
"""Bytes of a signed hold: a reason of ``TEXT_MAX`` characters takes up to four bytes for each."""

AUDIT_EVENT_MAX: Final = 16 * 1024
"""Bytes of one encoded audit event: above what the longest detail takes, below what a part of a
context may have."""

NAME_MAX: Final = 63
"""Characters of a subject token."""

TROUBLE_MAX: Final = 64
"""Characters of a few words on what is wrong, as they stand in a table."""
TARGET_MAX: Final = 160
"""Characters of what an audit event is about: a word and up to two names."""

TEXT_MAX: Final = 2048
"""Characters of free text (a URI, a reason)."""

KEY_SIZE: Final = 32
"""Bytes of every symmetric key."""

NONCE_SIZE: Final = 24
"""Bytes of an XAES-256-GCM nonce."""

TAG_SIZE: Final = 16
"""Bytes of an authentication tag."""

WRAPPED_SIZE: Final = NONCE_SIZE + KEY_SIZE + TAG_SIZE
"""Bytes of a wrapped key: nonce, ciphertext, tag."""

ID_SIZE: Final = 16
"""Bytes of a random identifier (hold, incarnation, session, request)."""

L1_BLOB_MAX: Final = 8192
"""Bytes of what an L1 makes of a nested blob: RSA-4096 gives 512, cloud services a few hundred."""

REGISTRY_SHARDS: Final = 16
"""Parts of a registry that are compared, each by itself: whoever differs in one stops serving the
tenants of that one."""

RESULT_MAX: Final = 640 * 1024
"""Bytes of a signed result of a kill with receipts: some 1,200 incarnations. With what is around
it, an answer that carries it stays below the bound of a message."""

RESULT_INCARNATIONS_MAX: Final = 4096
"""Incarnations, and receipts, that a result may list."""

HOLDS_MAX: Final = 4096
"""Holds in one answer to a pull: further ones come with the next page."""

TRIM_HEADS_MAX: Final = 64
"""Auditors whose heads stand in one decision to trim: more than any system has."""

STREAM_HEAD_MAX: Final = 1024
"""Bytes of a signed stream head: two names of 63 characters, two digests' worth and numbers."""

PARTS_SIZE: Final = 256 * 32
"""Bytes of the digests of a set of holds: one for each first byte of an id."""

LIFTS_MAX: Final = 8192
"""Holds that one page of lifted holds ends: 256 pages of a signer end two million."""

PAGES_SIZE: Final = 256 * 16
"""Bytes of the digests of pages of lifted holds: one for each first byte of an id."""

HOLDS_NAMED_MAX: Final = 16
"""Holds that are named beside a tenant: hundreds of tenants share an answer, and their links'
holds; ``hold list`` has them all."""

HOLD_PAGE_MAX: Final = 512
"""Holds in one page of a list for operators: looking at them takes a Core some 10 ms."""

AUDIT_EVENTS_MAX: Final = 256
"""Events in one audit message."""

PAGE_ROWS_MAX: Final = 256
"""Rows of one page of a list: some 5 ms of a Core's processor, in which no kill has its turn."""

PAGE_READS_MAX: Final = 64
"""Rows of a page for each of which a Core reads its stores: well below a second."""

PAGE_BYTES: Final = 384 * 1024
"""Bytes of rows in one page: with what is around them it stays below the bound of a message."""
