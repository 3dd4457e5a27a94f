"""Every bound of the wire in one place, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

BODY_MAX: Final = 900 * 1024
"""Bytes of body plus headers. Above the server's ``max_payload`` a client loses its connection."""

RECORDS_MAX: Final = 1024
"""Records in one request: bounds the work that one message can cause."""

KEYS_MAX: Final = 1024
"""Keys in one wrap or unwrap: as many as records in one request. A Core serves nothing else during
the call."""

PREFIXES_MAX: Final = 256
"""Different nonce prefixes in one unwrap: each costs a derivation, as much as several unwraps."""

ASKS_MAX: Final = 4
"""Cores for which one request has tags: two sessions, and two that replace them."""

PREFIX_SIZE: Final = 12
"""Bytes of a wrapped key's nonce that a batch of wraps shares."""

APP_CONTEXT_MAX: Final = 4096
"""Bytes of context that an application may bind to one record."""

DEADLINE_MAX_MS: Final = 60_000
"""Milliseconds from now to the latest allowed deadline: a later one would not limit replays."""

ITEMS_MAX: Final = 8192
"""Items of any list of a message: msgpack allocates room for what a list declares, once for each
nesting level, before it reads the items."""

FIELDS_MAX: Final = 64
"""Fields of any message."""

CONTAINERS_MAX: Final = 65_536
"""Lists and maps of any message: a roster of ten thousand instances with a few grants each. The
fields of most kinds of message allow only a handful."""

SIGNED_HOLD_MAX: Final = 16 * 1024
"""Bytes of a signed hold: a reason of ``TEXT_MAX`` characters takes up to four bytes for each."""

STANDING_MAX: Final = 32
"""Holds on instances' keys that an application follows: a region has few at a time."""

AUDIT_EVENT_MAX: Final = 16 * 1024
"""Bytes of one encoded audit event: above the longest detail, below the bound of one part of a
context."""

NAME_MAX: Final = 63
"""Characters of a subject token."""

TROUBLE_MAX: Final = 64
"""Characters of a short reason, as shown in a table."""

TARGET_MAX: Final = 160
"""Characters of the target of an audit event: a word and up to two names."""

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

SKEW_MS: Final = 5_000
"""Milliseconds by which two clocks may differ, in either direction."""

TICKET_MAX_MS: Final = 600_000
"""Milliseconds of a ticket's lifetime: it bounds how long a stolen session is useful."""

SESSION_KEY_MAX_MS: Final = 3_480_000
"""Milliseconds in which tickets are made for one session key. With the lifetime of the last ticket,
the skew of two clocks and half a minute for the wiping, less than 70 minutes: what was recorded
earlier is opened by no later theft."""

REFUSAL_MAX: Final = 16 * 1024
"""Bytes of a sealed refusal: its text has at most ``TEXT_MAX`` characters of up to four bytes."""

HPKE_PUBLIC_SIZE: Final = 1184 + 32
"""Bytes of an HPKE public key: ML-KEM-768 and X25519."""

L1_BLOB_MAX: Final = 8192
"""Bytes of a blob that an L1 made of a nested blob: RSA-4096 gives 512, clouds a few hundred."""

REGISTRY_SHARDS: Final = 16
"""Parts of a registry that are compared separately: an instance that differs in one part stops
serving only the tenants of that part."""

RESULT_MAX: Final = 640 * 1024
"""Bytes of a signed kill result with receipts: about 1,200 incarnations. A reply that carries it
stays below ``BODY_MAX``."""

REGISTRY_STATEMENT_MAX: Final = 64 * 1024
"""Bytes of a signed registry entry: an application with all its grants and the longest names."""

APP_GRANTS_MAX: Final = 256
"""Grants of one application: a tenant and a service, or all services of a tenant, each."""

RESULT_INCARNATIONS_MAX: Final = 4096
"""Incarnations, and receipts, that a result may list."""

HOLDS_MAX: Final = 4096
"""Holds in one reply to a pull; the next page has the others."""

TRIM_HEADS_MAX: Final = 64
"""Auditors whose heads one decision to trim contains: more than any system has."""

STREAM_HEAD_MAX: Final = 1024
"""Bytes of a signed stream head: two names of 63 characters, two digests and a few numbers."""

PARTS_SIZE: Final = 256 * 32
"""Bytes of the digests of a set of holds: one for each first byte of an id."""

LIFTS_MAX: Final = 8192
"""Holds that one lift page ends: the 256 pages of one signer end two million."""

PAGES_SIZE: Final = 256 * 16
"""Bytes of the digests of lift pages: one for each first byte of an id."""

HOLDS_NAMED_MAX: Final = 16
"""Holds that a tenant's entry names: hundreds of tenants share a reply, and the holds of their
links. ``hold list`` shows all of them."""

HOLD_PAGE_MAX: Final = 512
"""Holds in one page of a list for operators: a Core needs about 10 ms for one."""

AUDIT_EVENTS_MAX: Final = 256
"""Events in one audit message."""

PAGE_ROWS_MAX: Final = 256
"""Rows of one page of a list: about 5 ms of a Core's processor, during which a kill waits."""

PAGE_READS_MAX: Final = 64
"""Rows of a page for which a Core reads its stores: well below a second in total."""

PAGE_BYTES: Final = 384 * 1024
"""Bytes of rows in one page: the reply with its envelope stays below ``BODY_MAX``."""
