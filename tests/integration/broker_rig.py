"""A region and a backbone with operators, accounts and TLS, all made by `kcm_broker`."""

import asyncio
import contextlib
import json
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from kcm_broker import accounts
from kcm_broker import server_configuration as configuration
from kcm_broker.accounts import ScopeId
from kcm_broker.certificates import Authority
from kcm_broker.claims import User, operator_token
from kcm_broker.resolver import OwnScope, Pusher, SystemAccount
from kcm_broker.roles import INSTANCE_ROLES, Account, Role, inbox_prefix
from kcm_devsystem import processes
from kcm_devsystem.processes import ReadyFile
from kcm_devsystem.server_binary import nats_server_binary
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats import credentials
from kcm_runtime.nats.client import ReadingClient
from kcm_runtime.nats.credentials import Credentials, FileLogin
from kcm_runtime.nats.nkeys import KeyKind, SigningKey
from nats.aio.client import Client

INSTANCES = tuple((role, f"{role}-{n}") for role in sorted(INSTANCE_ROLES) for n in (1, 2))
CLOCK = SystemClock()
HOST = "127.0.0.1"
DAYS = 90
"""Days for which certificates are valid."""


def now_s():
    return CLOCK.unix_ms() // 1000


@dataclass
class Realm:
    """An operator with its accounts, and a key for each scope."""

    name: str
    root: SigningKey = field(default_factory=lambda: SigningKey.generate(KeyKind.OPERATOR))
    signer: SigningKey = field(default_factory=lambda: SigningKey.generate(KeyKind.OPERATOR))
    accounts: dict = field(default_factory=dict)
    scopes: dict = field(default_factory=dict)
    tokens: dict = field(default_factory=dict)

    def add(self, account, label="", **named):
        """Make an account, and its token."""
        key = self.accounts.setdefault(label or account, SigningKey.generate(KeyKind.ACCOUNT))
        mine = self.scopes.setdefault(label or account, {})
        for scope in accounts.scopes_of(account, INSTANCES):
            mine.setdefault(scope, SigningKey.generate(KeyKind.ACCOUNT))
        token = self.issue(account, label, **named)
        self.tokens[key.public] = token
        return key.public

    def issue(self, account, label="", revocations=(), peering=None, signer=None, after=None):
        """Return another token of an account."""
        mine = {scope: key.public for scope, key in self.scopes[label or account].items()}
        body = accounts.account_body(
            label or self.name, account, mine, revocations, now_s=now_s(), peering=peering
        )
        public = self.accounts[label or account].public
        return accounts.issue_account(signer or self.signer, public, account, body, CLOCK, after)

    @property
    def operators(self):
        return {self.root.public, self.signer.public}

    def pusher(self, nodes, count=1):
        """A pusher of this realm's accounts, by a client or by other nodes."""
        if isinstance(nodes, Client):
            nodes = SystemAccount(nodes, CLOCK, 1.0)
        key = self.scopes[Account.SYSTEM][ScopeId(Role.PUSHER, Account.SYSTEM)]
        own = OwnScope(self.accounts[Account.SYSTEM].public, key.public)
        return Pusher(nodes, self.operators, count, own)

    def trust(self, directory):
        system = self.accounts[Account.SYSTEM].public
        token = operator_token(self.root, self.name, [self.signer.public], system, now_s())
        return configuration.Trust(token, system, self.tokens, directory)

    def user(self, scope, label="", key=None, name="", **named):
        """Return new credentials of a scope."""
        key = key or SigningKey.generate(KeyKind.USER)
        after = named.pop("after", 0)
        one = User(key.public, name or scope.instance or "someone", **named)
        token = accounts.issue_user(
            self.scopes[label or scope.account][scope],
            scope,
            self.accounts[label or scope.account].public,
            one,
            CLOCK,
            after,
        )
        return Credentials(token, key)


def region_realm(name="eu"):
    realm = Realm(name)
    for account in (Account.REGION, Account.CONTROL, Account.VAULT, Account.SYSTEM):
        realm.add(account)
    return realm


def backbone_realm(regions):
    realm = Realm("backbone")
    realm.add(Account.SYSTEM)
    for region in regions:
        realm.accounts[region] = SigningKey.generate(KeyKind.ACCOUNT)
    public = {region: realm.accounts[region].public for region in regions}
    for region in regions:
        realm.add(Account.BACKBONE, region, peering=accounts.peering_of(region, public))
    return realm


@dataclass
class Server:
    """A running server, from the generated text of its configuration."""

    process: processes.Process
    port: int
    leaf_port: int
    directory: Path

    @property
    def url(self):
        return f"tls://{HOST}:{self.port}"

    def stop(self):
        processes.stop([self.process])

    @property
    def log(self):
        return self.process.log_path.read_text()


def start(directory, name, text):
    """Start a server; it is ready when its ports file is there."""
    directory.mkdir(exist_ok=True)
    (directory / "accounts").mkdir(mode=configuration.RESOLVER_MODE, exist_ok=True)
    path = directory / "server.conf"
    path.write_text(text)
    argv = [str(nats_server_binary()), "--config", str(path)]
    process = processes.spawn(name, argv, directory / "log", {}, die_with_parent=True)
    ports = directory / f"nats-server_{process.pid}.ports"
    processes.wait_ready(process, ReadyFile(ports))
    found = read_when_written(ports)
    leaf = re.search(r"leafnode connections on [^ ]*:(\d+)", process.log_path.read_text())
    port = urlparse(found["nats"][0]).port  # the file has none for leaf nodes
    return Server(process, port, int(leaf[1]) if leaf else 0, directory)


def read_when_written(path):
    """Read a ports file; the server makes it and writes it a moment later."""
    until = time.monotonic() + 10
    while True:
        text = path.read_text()
        if text.rstrip().endswith("}"):
            return json.loads(text)
        assert time.monotonic() < until, text
        time.sleep(0.005)


@dataclass
class Ca:
    """A certificate authority, and the certificates that it made, in files."""

    directory: Path
    authority: Authority = field(default_factory=lambda: Authority.create("kcm-ca", DAYS, CLOCK))

    def __post_init__(self):
        self.directory.mkdir(exist_ok=True)
        (self.directory / "ca.pem").write_bytes(self.authority.certificate)

    def tls(self, name, *, verify=False):
        made = self.authority.server(name, ["localhost", HOST], DAYS)
        for ending, content in (("pem", made.certificate), ("key", made.key)):
            (self.directory / f"{name}.{ending}").write_bytes(content)
        place = self.directory
        return configuration.Tls(
            place / f"{name}.pem", place / f"{name}.key", place / "ca.pem", verify=verify
        )

    def client(self, name=""):
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        if name:
            made = self.authority.client(name, DAYS)
            path = self.directory / f"client-{name}.pem"
            path.write_bytes(made.certificate + made.key)
            context.load_cert_chain(path)
        return context


def start_region(directory, realm, ca, link=None, *, verify=False, number=1, cluster=None):
    name = f"{realm.name}-{number}"
    node = configuration.RegionNode(
        realm.name,
        configuration.Listening(name, HOST, -1, ports_dir=directory),
        ca.tls(name, verify=verify),
        realm.trust(directory / "accounts"),
        configuration.Streams(directory / "streams", 64 << 20, 16 << 20),
        link,
        cluster,
    )
    return start(directory, name, configuration.region_text(node))


def start_backbone(directory, realm, ca):
    node = configuration.BackboneNode(
        configuration.Listening("backbone-1", HOST, -1, ports_dir=directory),
        ca.tls("backbone-1"),
        realm.trust(directory / "accounts"),
        HOST,
        -1,
        ca.directory / "ca.pem",
    )
    return start(directory, "backbone", configuration.backbone_text(node))


@dataclass
class Connected:
    """A client, and the errors that the server told it."""

    client: Client
    own: str
    errors: list = field(default_factory=list)
    closed: list = field(default_factory=list)


def abort(client):
    """Close the socket of a client that was refused or closed.

    The library leaves the plain stream under TLS open, and after a handshake that failed, its own
    closing waits without end.
    """
    transport = client._transport  # noqa: SLF001 - see above
    for name in ("_bare_io_writer", "_io_writer"):
        writer = getattr(transport, name, None)
        if writer is not None:
            writer.transport.abort()


async def connect(server, ca, made, scope, directory, *, context=None, **options):
    """Connect with a credentials file; one attempt, and no reconnecting by default."""
    path = directory / f"{made.key.public}.creds"
    credentials.write(path, made)
    login = FileLogin(path)
    own = scope.instance or made.key.public
    one = Connected(ReadingClient(), own)

    async def on_error(error):
        one.errors.append(error)

    async def on_closed():
        one.closed.append(True)

    url = server if isinstance(server, str) else server.url
    try:
        await one.client.connect(
            servers=[url],
            user_jwt_cb=login.user_jwt,
            signature_cb=login.signature,
            inbox_prefix=inbox_prefix(scope.role, own),
            error_cb=on_error,
            closed_cb=on_closed,
            connect_timeout=5,
            **(
                {
                    "tls": context or ca.client(),
                    "tls_handshake_first": True,
                    "allow_reconnect": False,
                    "max_reconnect_attempts": 0,
                }
                | options
            ),
        )
    except BaseException:
        abort(one.client)
        raise
    return one


@contextlib.asynccontextmanager
async def joining(ca, directory):
    """Connects users of realms to servers; all of them are disconnected at the end."""
    joined = []

    async def join(server, realm, scope, made=None, context=None, **named):
        made = made or realm.user(scope, **named)
        one = await connect(server, ca, made, scope, directory, context=context)
        joined.append(one.client)
        return one

    try:
        yield join
    finally:
        for client in joined:
            await client.close()
            abort(client)


@dataclass
class Region:
    """A region of one server, and how users join it."""

    directory: Path
    ca: Ca
    realm: Realm
    server: Server
    joined: Callable

    async def join(self, scope, made=None, at=None, **named):
        return await self.joined(at or self.server, self.realm, scope, made, **named)


@contextlib.asynccontextmanager
async def running(directory):
    """A region, until the end of the block."""
    ca, realm = Ca(directory / "ca"), region_realm()
    server = start_region(directory / "eu", realm, ca)
    try:
        async with joining(ca, directory) as joined:
            yield Region(directory, ca, realm, server, joined)
    finally:
        server.stop()


async def until(condition):
    """Wait until a condition is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the client library has no event for it
            await asyncio.sleep(0.01)


async def until_answer(question):
    """Wait until an asynchronous question is answered with yes."""
    async with asyncio.timeout(20):
        while not await question():  # noqa: ASYNC110 - the client library has no event for it
            await asyncio.sleep(0.02)


def scope(role, account, instance=""):
    return ScopeId(Role(role), Account(account), instance)
