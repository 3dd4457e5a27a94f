"""A system in memory for the client's tests: a Gateway, Cores and a context that names them.

The Gateway's cipher hides nothing, but binds like the real one: a record opens only whole, in its
region, for its tenant and service, and under the context that it was made with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

from kcm._internal.client_context import ClientContext
from kcm._internal.rpc import Environment
from kcm.errors import Unavailable
from kcm_broker import signers
from kcm_broker.claims import User, user_token
from kcm_broker.signers import Signers
from kcm_runtime.config import BusAddress
from kcm_runtime.files.identity_file import create_identity
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.nkeys import KeyKind, SigningKey
from kcm_schemas import data_subjects, limits, record
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptReply, DecryptRequest, EncryptReply, EncryptRequest
from kcm_schemas.roster import Grant, Instance, Operator, OperatorRole, Region, Role, Roster
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements
from kcm_trust.identity import ROOT
from kcm_trust.verify import Verifier

from tests.fakes.operator_core import FakeCore, Handler, Script

REGIONS = ("eu", "us")
SYSTEM = "acme"
NOW_MS = 1_800_000_000_000


@dataclass
class FakeClock:
    """Time that moves only when somebody moves it."""

    now: float = 1000.0

    def unix_ms(self) -> int:
        return NOW_MS + int((self.now - 1000.0) * 1000)

    def elapsed(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def around(self) -> Environment:
        return Environment(clock=self, chance=lambda: 0.5, sleep=self.sleep)


def seal(region: str, tenant: str, service: str, plaintext: bytes, context: bytes) -> bytes:
    """A record as the fake Gateway makes it."""
    wrapped = sha256(plaintext + context).digest() * 2 + bytes(8)
    header = record.build(record.prefix(region, tenant, service, 1), wrapped, 0)
    return header + plaintext[::-1] + _tag(header, context, plaintext)


def _tag(header: bytes, context: bytes, plaintext: bytes) -> bytes:
    return sha256(
        b"".join(len(part).to_bytes(4, "big") + part for part in (header, context, plaintext))
    ).digest()[: limits.TAG_SIZE]


def _open(region: str, tenant: str, service: str, sealed: bytes, context: bytes) -> bytes:
    header = record.parse(sealed)
    if header.region != region:
        raise KcmError(Code.WRONG_REGION)
    if (header.tenant, header.service) != (tenant, service):
        raise KcmError(Code.FORBIDDEN)
    plaintext = sealed[len(header.raw) : -limits.TAG_SIZE][::-1]
    if sealed[-limits.TAG_SIZE :] != _tag(header.raw, context, plaintext):
        raise KcmError(Code.TAMPERED)
    return plaintext


@dataclass
class FakeGateway:
    """A Gateway of one region behind the transport's port, as strict about bounds as NATS is."""

    region: str
    clock: FakeClock
    script: Script | None = None
    refuse: dict[bytes, Code] = field(default_factory=dict)
    """Codes for single payloads."""
    requests: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """Records of each request."""
    at_once: int = 0
    most_at_once: int = 0
    closed: bool = False

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        assert not self.closed
        assert 0 < timeout_s <= 5
        assert len(body) <= limits.BODY_MAX
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            answer = await self.script(subject, body) if self.script else None
            reply = self.answer(subject, body) if answer is None else answer
        finally:
            self.at_once -= 1
        assert len(reply) <= limits.BODY_MAX
        return reply

    async def close(self) -> None:
        self.closed = True

    def answer(self, subject: str, body: bytes) -> bytes:
        """What the Gateway says."""
        self.requests.append(subject)
        place = data_subjects.read_data(subject)
        if place.operation == "encrypt":
            asked = decode(EncryptRequest, body)
            self._in_time(asked.deadline_ms)
            values, codes = self._each(
                asked.plaintexts,
                asked.contexts,
                lambda payload, context: seal(
                    self.region, place.tenant, place.service, payload, context
                ),
            )
            return encode(EncryptReply(v=1, lease_ms=5_000, records=values, codes=codes))
        wanted = decode(DecryptRequest, body)
        self._in_time(wanted.deadline_ms)
        values, codes = self._each(
            wanted.records,
            wanted.contexts,
            lambda payload, context: _open(
                self.region, place.tenant, place.service, payload, context
            ),
        )
        return encode(DecryptReply(v=1, lease_ms=5_000, plaintexts=values, codes=codes))

    def _in_time(self, deadline_ms: int) -> None:
        assert 0 < deadline_ms - self.clock.unix_ms() <= 5000

    def _each(
        self, payloads: list[bytes], contexts: list[bytes], work: Callable[[bytes, bytes], bytes]
    ) -> tuple[list[bytes], list[Code]]:
        self.sizes.append(len(payloads))
        values, codes = [], []
        for index, payload in enumerate(payloads):
            context = contexts[index if len(contexts) > 1 else 0] if contexts else b""
            code = self.refuse.get(payload, Code.OK)
            value = b""
            if code is Code.OK:
                try:
                    value = work(payload, context)
                except KcmError as error:
                    code = error.code
            values.append(value)
            codes.append(code)
        return values, codes if any(code is not Code.OK for code in codes) else []


class FakeSystem:
    """Two regions with a Gateway, a Core and an Auditor each, and the context of an operator."""

    def __init__(self, directory: Path, *, second: bool = False) -> None:
        """``second``: each region has a second Core."""
        self.directory = directory
        self.clock = FakeClock()
        self.root = create_identity(ROOT, str(directory / "root.key"), SYSTEM)
        self.alice = create_identity("alice", str(directory / "alice.key"), SYSTEM)
        self.identities = {
            name: create_identity(name, str(directory / f"{name}.key"), SYSTEM)
            for region in REGIONS
            for name in (f"core-{region}", f"auditor-{region}", *[f"core-{region}-2"][:second])
        }
        self.roster = Roster(
            system=SYSTEM,
            version=1,
            issued_ms=NOW_MS,
            instances=[self._instance(name) for name in self.identities],
            operators=[
                Operator(
                    operator="alice",
                    roles=[OperatorRole.ADMIN, OperatorRole.SECURITY],
                    public_key=self.alice.public,
                )
            ],
            regions=[_region(name) for name in REGIONS],
        )
        self.verifier = Verifier(self.roster)
        self.gateways = {region: FakeGateway(region, self.clock) for region in REGIONS}
        self.cores = {region: self._fake(region, f"core-{region}") for region in REGIONS}
        if second:
            for region, core in self.cores.items():
                core.mates[f"core-{region}-2"] = self._fake(region, f"core-{region}-2")
        self.unreachable: set[str] = set()
        self.forgotten: set[str] = set()
        self.signed: set[str] = set()
        self.app = ""
        self.context_file = self.write_context()

    def context(self) -> ClientContext:
        """The context as a client reads it."""
        return ClientContext.load(self.context_file)

    async def open(self, address: BusAddress, name: str) -> FakeGateway | FakeCore:
        """The opener: the place of the inboxes decides who is on the other side."""
        assert name.startswith("kcm-")
        region = address.url.removeprefix("nats://")
        role = address.inbox.removeprefix("_INBOX.")
        user = {"application": "app"}.get(role, role)
        assert address.credentials == self.directory / f"{region}.{user}.creds"
        assert credentials.read(address.credentials)
        if region in self.unreachable:
            raise Unavailable("no connection")
        if user == "operator":
            return self.cores[region]
        self.gateways[region].closed = False
        return self.gateways[region]

    def retire(self, name: str) -> None:
        """Somebody leaves, and nothing of theirs lasts."""
        self.roster = self.roster.model_copy(
            update={
                "version": self.roster.version + 1,
                "instances": [
                    one.model_copy(update={"retired": Endorsements().retirement()})
                    if one.instance == name
                    else one
                    for one in self.roster.instances
                ],
            }
        )
        self.write_context()

    def demote(self, name: str) -> None:
        """An operator is ``admin`` only, from the next roster on."""
        (one,) = [one for one in self.roster.operators if one.operator == name]
        only = one.model_copy(update={"roles": [OperatorRole.ADMIN]})
        changes = {"version": self.roster.version + 1, "operators": [only]}
        self.roster = self.roster.model_copy(update=changes)
        self.write_context()

    def forget(self, region: str) -> None:
        """The context has no such region any more; the roster has."""
        self.forgotten.add(region)
        self.write_context()

    def let_sign(self, *regions: str) -> None:
        """The operator gets the keys that sign credentials of applications in these regions."""
        for region in regions:
            keys = {role: SigningKey.generate(KeyKind.ACCOUNT) for role in signers.SIGNED}
            account = SigningKey.generate(KeyKind.ACCOUNT).public
            signers.write(self.directory / f"{region}.signers", Signers(account, keys))
            self.signed.add(region)
        self.write_context()

    def name_app(self, name: str) -> None:
        """The context names this application."""
        self.app = name
        self.write_context()

    def everywhere(self, noun: str, verb: str, handler: Handler) -> None:
        """Answer one noun and verb alike in every region."""
        for core in self.cores.values():
            for one in (core, *core.mates.values()):
                one.handlers[noun, verb] = handler

    def _fake(self, region: str, name: str) -> FakeCore:
        core, auditor = self.identities[name], self.identities[f"auditor-{region}"]
        return FakeCore(region, core, auditor, self.verifier, self.clock)

    def _instance(self, name: str) -> Instance:
        role, region = name.split("-")[:2]
        return Instance(
            instance=name,
            role=Role(role),
            region=region,
            public_key=self.identities[name].public,
            grants=[Grant(tenant="*", service="*")],
        )

    def write_context(self) -> Path:
        """Write the roster and the context as they are now; returns the context's file."""
        (self.directory / "roster").write_bytes(encode(self.root.sign(Kind.ROSTER, self.roster)))
        regions = ""
        for region in REGIONS:
            for user in ("app", "operator"):
                path = self.directory / f"{region}.{user}.creds"
                if not path.exists():
                    path.write_text(fake_credentials(user))
                path.chmod(0o600)
            if region not in self.forgotten:
                regions += (
                    f'[regions.{region}]\nurl = "nats://{region}"\n'
                    f'app_credentials = "{region}.app.creds"\n'
                    f'operator_credentials = "{region}.operator.creds"\n'
                )
            if region in self.signed - self.forgotten:
                regions += f'signers = "{region}.signers"\n'
        app = f'[app]\nname = "{self.app}"\nkey = "{self.app}.key"\n' if self.app else ""
        path = self.directory / "context.toml"
        path.write_text(
            f'version = 2\nsystem = "acme"\nroot_public = "{self.root.public.hex()}"\n'
            'roster = "roster"\n'
            f'default_region = "eu"\n{regions}[operator]\nname = "alice"\nkey = "alice.key"\n{app}'
        )
        return path


def _region(name: str) -> Region:
    return Region(region=name, seal_key_id=bytes(16))


@cache
def fake_credentials(user: str) -> str:
    """Return the credentials of a user whom some account lets in."""
    signer, key = SigningKey.generate(KeyKind.ACCOUNT), SigningKey.generate(KeyKind.USER)
    token = user_token(signer, signer.public, User(key.public, user), 1_700_000_000)
    return credentials.to_text(Credentials(token, key))
