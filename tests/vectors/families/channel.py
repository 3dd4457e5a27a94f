"""The sealed channel: a ticket, a request and its reply, with fixed secrets.

HPKE draws its own randomness, so the ticket's ciphertext was recorded once, by ``record``, and is
an input here: ``hpke-ciphertext.hex`` beside the vectors.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from kcm_keymem.arena import Arena
from kcm_schemas import labels
from kcm_schemas.asks import keys_digest, to_tag
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.data import Failure
from kcm_schemas.labels import ctx
from kcm_schemas.session import SealedRefusal, SealedReply, Ticket
from kcm_schemas.vault import REPLY_HEAD, CoreRequest
from kcm_sealing.hpke import HpkePrivate, HpkePublic
from kcm_sealing.session import Outcome, TicketInfo, open_session_as_callee, to_sign

from tests.vectors.families.fixed import Document, fixed, flip
from tests.vectors.families.keys import REGION, SERVICE, TENANT
from tests.vectors.families.messages import ISSUED, identity

CIPHERTEXT = Path(__file__).parents[1] / "hpke-ciphertext.hex"
HPKE_SECRET = fixed("hpke secret", 96)
SECRET = fixed("session secret")
CALLER, CALLEE = "gateway-1", "core-1"
OPERATION = "wrap"
INFO = TicketInfo(
    region=REGION,
    callee=CALLEE,
    key_id=fixed("hpke key id", 16),
    caller=CALLER,
    incarnation=fixed("incarnation id", 16),
    session_id=fixed("session id", 16),
    issued_ms=ISSUED,
    expiry_ms=ISSUED + 600_000,
)


def record() -> None:
    """Encapsulate the fixed secret anew; every vector of the channel changes with it."""
    public = HpkePublic.from_bytes(_private().public_bytes)
    made = public.encrypt(memoryview(bytearray(SECRET)), INFO.encode())
    CIPHERTEXT.write_text(made.hex() + "\n")


def _private() -> HpkePrivate:
    return HpkePrivate(memoryview(bytearray(HPKE_SECRET)))


def channel() -> Document:
    """Everything from the ticket to the reply, step by step."""
    ciphertext = bytes.fromhex(CIPHERTEXT.read_text())
    info = INFO.encode()
    gateway = identity(CALLER)
    ticket = Ticket(
        v=1,
        caller=CALLER,
        incarnation=INFO.incarnation,
        session_id=INFO.session_id,
        key_id=INFO.key_id,
        issued_ms=INFO.issued_ms,
        expiry_ms=INFO.expiry_ms,
        ciphertext=ciphertext,
        signature=gateway.sign_raw(to_sign(info, ciphertext)),
    )
    plain = fixed("first data key") + fixed("second data key")
    request, clear = _request(ciphertext, plain)
    body = encode(request)
    aad = ctx(labels.REQUEST, INFO.session_id, request.counter, clear)
    reply, answer = _reply(ciphertext, aad)
    refusal, refused = _refusal(ciphertext, aad)
    salt = sha256(info + ciphertext).digest()
    return {
        "about": "one wrap of two keys: ticket, sealed request, sealed reply, with every "
        "intermediate value",
        "info_parts": _info_parts(),
        "subject": [REGION, OPERATION, TENANT, SERVICE],
        "hpke_secret": HPKE_SECRET.hex(),
        "hpke_public": _private().public_bytes.hex(),
        "caller_public": gateway.public.hex(),
        "info": info.hex(),
        "ciphertext": ciphertext.hex(),
        "signature": ticket.signature.hex(),
        "ticket": encode(ticket).hex(),
        "session_secret": SECRET.hex(),
        "salt": salt.hex(),
        "request_key": HKDF(SHA256(), 32, salt, b"request").derive(SECRET).hex(),
        "reply_key": HKDF(SHA256(), 32, salt, b"reply").derive(SECRET).hex(),
        "counter": request.counter,
        "clear": clear.hex(),
        "request_aad": aad.hex(),
        "request_plain": plain.hex(),
        "request": body.hex(),
        "callee": CALLEE,
        "reply_aad": ctx(labels.REPLY, sha256(aad).digest(), CALLEE, "answered").hex(),
        "reply_plain": answer.hex(),
        "reply": encode(reply).hex(),
        "refusal_aad": ctx(labels.REPLY, sha256(aad).digest(), CALLEE, "refused").hex(),
        "refusal_plain": refused.hex(),
        "refusal": encode(refusal).hex(),
        **_ask(ciphertext, salt),
        "invalid": _broken(request, body, reply, refusal),
    }


def _info_parts() -> list[str | int]:
    ids = (INFO.incarnation.hex(), INFO.session_id.hex())
    return [REGION, CALLEE, INFO.key_id.hex(), CALLER, *ids, INFO.issued_ms, INFO.expiry_ms]


def _request(ciphertext: bytes, plain: bytes) -> tuple[CoreRequest, bytes]:
    fields: dict[str, Any] = {
        "v": 1,
        "caller": CALLER,
        "session_id": INFO.session_id,
        "counter": 300,
        "deadline_ms": ISSUED + 2_000,
        "purpose": "record",
        "l3_version": 0,
        "count": 2,
    }
    clear = CoreRequest(**fields, sealed=b"").clear(REGION, OPERATION, TENANT, SERVICE)
    session = open_session_as_callee(INFO, _private(), ciphertext, Arena())
    try:
        columns = memoryview(bytearray(plain))
        nonce = fixed("request nonce", 24)
        sealed = session.seal_request(fields["counter"], clear, columns, nonce)
    finally:
        session.close()
    return CoreRequest(**fields, sealed=sealed), clear


def _ask(ciphertext: bytes, salt: bytes) -> dict[str, Any]:
    """An application's tag for two wrapped keys, in a session with the same secrets."""
    wrapped = fixed("first blob", 72) + fixed("second blob", 72)
    about = (INFO.session_id, REGION, CALLER, TENANT, SERVICE, ISSUED + 2_000, 3)
    message = to_tag(*about, keys_digest(wrapped))
    session = open_session_as_callee(INFO, _private(), ciphertext, Arena())
    try:
        tag = session.tag(message)
    finally:
        session.close()
    return {
        "ask_key": HKDF(SHA256(), 32, salt, b"ask").derive(SECRET).hex(),
        "ask_parts": [INFO.session_id.hex(), *about[1:]],
        "ask_wrapped": wrapped.hex(),
        "ask_message": message.hex(),
        "ask_tag": tag.hex(),
    }


def _reply(ciphertext: bytes, aad: bytes) -> tuple[SealedReply, bytes]:
    answer = REPLY_HEAD.pack(9_500, 3) + fixed("first blob", 72) + fixed("second blob", 72)
    sealed = _sealed(ciphertext, aad, answer, "answered")
    return SealedReply(v=1, sealed=sealed), answer


def _refusal(ciphertext: bytes, aad: bytes) -> tuple[SealedRefusal, bytes]:
    failure = encode(Failure(v=1, error=Code.TENANT_KILLED, detail="the tenant is killed"))
    return SealedRefusal(v=1, refused=_sealed(ciphertext, aad, failure, "refused")), failure


def _sealed(ciphertext: bytes, aad: bytes, plain: bytes, outcome: Outcome) -> bytes:
    session = open_session_as_callee(INFO, _private(), ciphertext, Arena())
    try:
        digest, nonce = sha256(aad).digest(), fixed(f"{outcome} nonce", 24)
        return session.seal_reply(digest, memoryview(bytearray(plain)), nonce, outcome)
    finally:
        session.close()


def _broken(
    request: CoreRequest, body: bytes, reply: SealedReply, refusal: SealedRefusal
) -> list[dict[str, Any]]:
    """What must not open: ``direction``, the sealed bytes, and what they are opened against."""
    here = [REGION, OPERATION, TENANT, SERVICE]
    home: dict[str, Any] = {
        "direction": "request",
        "subject": here,
        "request": body.hex(),
        "sealed": request.sealed.hex(),
    }
    back = home | {"direction": "reply", "callee": CALLEE, "sealed": reply.sealed.hex()}

    def other(**fields: Any) -> str:
        return encode(CoreRequest(**(dict(request) | fields))).hex()

    subjects = [
        ["us-east", *here[1:]],
        [REGION, "unwrap", TENANT, SERVICE],
        [REGION, OPERATION, "globex", SERVICE],
        [REGION, OPERATION, TENANT, "billing"],
    ]
    rows = [home | {"name": f"subject {'.'.join(s)}", "subject": s} for s in subjects]
    rows += [
        home | {"name": f"another {name}", "request": other(**{name: value})}
        for name, value in (
            ("counter", 301),
            ("deadline_ms", request.deadline_ms + 1),
            ("purpose", "stream"),
            ("l3_version", 1),
            ("count", 1),
            ("caller", "gateway-2"),
        )
    ]
    rows += [
        home | {"name": "a reply as a request", "sealed": reply.sealed.hex()},
        home | {"name": "a bit of the nonce", "sealed": flip(request.sealed, 0).hex()},
        home | {"name": "a bit of the request", "sealed": flip(request.sealed, 24).hex()},
        back | {"name": "a request as a reply", "sealed": request.sealed.hex()},
        back | {"name": "a bit of the reply", "sealed": flip(reply.sealed, -1).hex()},
        back | {"name": "a refusal as an answer", "sealed": refusal.refused.hex()},
        back | {"name": "the reply to another", "request": other(deadline_ms=ISSUED + 2_001)},
    ]
    return [row | {"failure": "tampered"} for row in rows]
