"""One region's broker, which a test stops and starts."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kcm_devsystem import processes, topology
from kcm_devsystem.broker_users import Users, password_path
from kcm_devsystem.brokers import Account, Role, login_name
from kcm_runtime.config import BusAddress
from kcm_schemas import subjects

REGION = "eu"


@dataclass
class Broker:
    """One region's broker, to be stopped and started."""

    topology: topology.Topology
    process: processes.Process
    backbone: processes.Process

    def address(self, role=Role.VISITOR):
        return BusAddress(
            url=self.topology.region(REGION).url,
            user=login_name(role, Account.REGION),
            password_file=password_path(self.topology.root, REGION, role, Account.REGION),
        )

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
