"""One region's broker, which a test stops and starts."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
from kcm_broker.accounts import Revocation, issue_account, live, revoke
from kcm_broker.claims import User, user_token, verify_account, verify_user
from kcm_broker.key_files import kept_key
from kcm_broker.resolver import Pusher, SystemAccount
from kcm_broker.roles import Account, Role
from kcm_deployment.broker_files import SETUP
from kcm_devsystem import processes, topology
from kcm_devsystem.broker_users import VISITOR, Users
from kcm_devsystem.configs import address, visitor
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.login import Login
from kcm_runtime.nats.nkeys import KeyKind
from kcm_schemas import subjects

REGION = "eu"
TOKEN = ("realms", REGION, "accounts", Account.REGION, "token.jwt")
CLOCK = SystemClock()


@dataclass
class Broker:
    """One region's broker, to be stopped and started."""

    topology: topology.Topology
    process: processes.Process
    backbone: processes.Process
    _revoked: Revocation | None = None

    def address(self):
        return visitor(self.topology, REGION)

    async def revoke_visitor(self):
        """Refuse the visitor's present credentials, and end its connections."""
        realm, path = self.topology.brokers.realm(REGION), self.address().credentials
        public, now_s = realm.public(Account.REGION), CLOCK.unix_ms() // 1000
        user = verify_user(credentials.read(path).token, public, {self._signer.public}, now_s)
        self._revoked = revoke(user, now_s)
        old = verify_account(self._place(*TOKEN).read_text(), realm.operators)
        body = {key: one for key, one in old.body.items() if key not in ("type", "version")}
        body["revocations"] = live([self._revoked], now_s)
        operator = kept_key(self._place("realms", REGION, "signer.seed"), KeyKind.OPERATOR)
        token = issue_account(operator, public, Account.REGION, body, CLOCK, old)
        setup = address(self.topology, REGION, Role.PUSHER, Account.SYSTEM, SETUP)
        client = await nats.connect(setup.url, **Login(setup).options())
        try:
            nodes = SystemAccount(client, CLOCK)
            await Pusher(nodes, realm.operators, 1, realm.own_scope()).push(token)
        finally:
            await client.close()

    def renew_visitor(self):
        """Give the visitor later credentials than those that were revoked."""
        path = self.address().credentials
        key, public = (
            credentials.read(path).key,
            self.topology.brokers.realm(REGION).public(Account.REGION),
        )
        token = user_token(self._signer, public, User(key.public, VISITOR), self._revoked.at + 1)
        credentials.write(path, Credentials(token, key))

    @property
    def _signer(self):
        name = f"{VISITOR}-{Account.REGION}.seed"
        return kept_key(self._place("users", REGION, name), KeyKind.ACCOUNT)

    def _place(self, *names):
        return self.topology.root.joinpath(*names)

    async def stop(self):
        await asyncio.to_thread(processes.stop, [self.process])

    def start(self):
        self.process = topology.start_broker(self.topology, REGION, die_with_parent=True)


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Broker]:
    """A system of one region, whose broker runs until the end of the block."""
    made, entries = topology.start(
        directory, [REGION], die_with_parent=True, users=Users(visitor=True)
    )
    one = Broker(made, entries[1].process, entries[0].process)
    yield one
    processes.stop([one.process])
    processes.stop([one.backbone])


SUBJECT = {
    subjects.CONTROL_STREAM: subjects.control_hold(REGION, "tenant", bytes(16)),
    subjects.AUDIT_STREAM: subjects.audit(REGION, "core-x"),
    "KV_kcm-keys": subjects.bucket_subject(subjects.KEYS_BUCKET, "root", "acme"),
    "KV_kcm-registry": subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", "acme"),
    "KV_kcm-results": subjects.bucket_subject(subjects.RESULTS_BUCKET, "result", "aa" * 16),
}


def holds(condition):
    async def ask():
        return condition()

    return ask
