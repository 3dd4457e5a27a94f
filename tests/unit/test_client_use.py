"""The SDK used wrongly: at once and by an exception of its own, and nothing is sent."""

import asyncio
import logging
import os
import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import kcm
import pytest
from kcm import sync
from kcm._internal.admin import Admin
from kcm._internal.client import Client
from kcm.errors import error_for
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.text import CHARACTERS_MAX, printable

from tests.fakes.client import FakeClock, FakeGateway, FakeSystem
from tests.fakes.refusals import failure


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway("eu", FakeClock())


@pytest.fixture
def client(gateway: FakeGateway) -> Client:
    return Client(gateway, "eu", gateway.clock.around())


def test_every_public_name_is_there() -> None:
    homes = {getattr(kcm, name).__module__ for name in kcm.__all__ if name != "__version__"}
    names = {name for home in homes for name in vars(sys.modules[home]) if name not in vars(kcm)}
    assert {name for name in names if hasattr(kcm, name)} == set(kcm.__all__) - {"__version__"}
    assert kcm.__version__ == version("kcm")
    with pytest.raises(AttributeError):
        _ = kcm.Nothing


@pytest.mark.parametrize(
    ("arguments", "kind", "argument", "index", "text"),
    [
        (("acme", "files", b"x"), kcm.BadType, "plaintexts", None, "is bytes; it has to be a seq"),
        (("acme", "files", memoryview(b"x")), kcm.BadType, "plaintexts", None, "is memoryview"),
        (("acme", "files", ["x"]), kcm.BadType, "plaintexts", 0, r"plaintexts\[0\] is str"),
        (("acme", "files", [b"", None]), kcm.BadType, "plaintexts", 1, "NoneType"),
        (("acme", "files", [b""], ["x"]), kcm.BadType, "contexts", 0, r"contexts\[0\] is str"),
        (("acme", "files", [b""], "x"), kcm.BadType, "contexts", None, "contexts is str"),
        (("acme", "files", [b""] * 3, [b""] * 2), kcm.BadValue, "contexts", None, "2 entries"),
        (
            ("acme", "files", [b""] * 2, [b"row-1"]),
            kcm.BadValue,
            "contexts",
            None,
            "1 entry for",
        ),
        (("acme", "files", [b""] * 2, []), kcm.BadValue, "contexts", None, "0 entries"),
        (("acme", "files", [b""], bytes(4097)), kcm.BadValue, "contexts", None, "4097 bytes"),
        (("acme", "files", [b""], [bytes(4097)]), kcm.BadValue, "contexts", 0, "4097 bytes"),
        (("acme.>", "files", [b""]), kcm.BadValue, "tenant", None, "is not a name"),
        (("acme", 7, [b""]), kcm.BadType, "service", None, "service is int"),
    ],
)
async def test_a_bad_argument_says_which_and_where(
    client, gateway, arguments, kind, argument, index, text
) -> None:
    with pytest.raises(kind, match=text) as caught:
        await client.encrypt(*arguments)
    assert (caught.value.argument, caught.value.index) == (argument, index)
    assert isinstance(caught.value, KcmError)
    assert isinstance(caught.value, TypeError if kind is kcm.BadType else ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert gateway.requests == []


async def test_other_bad_arguments_are_ours_too(client: Client) -> None:
    with pytest.raises(kcm.BadValue, match="dek_scope"):
        await client.encrypt("acme", "files", [b""], dek_scope="all")
    for deadline_s in (0, float("nan"), float("inf")):
        with pytest.raises(kcm.BadValue, match="deadline_s"):
            await client.decrypt("acme", "files", [b""], deadline_s=deadline_s)
        with pytest.raises(kcm.BadValue, match="deadline_s"):
            await client.encrypt_one("acme", "files", b"", deadline_s=deadline_s)
    with pytest.raises(kcm.BadType, match="records"):
        await client.decrypt("acme", "files", ["x"])


async def test_another_event_loop_is_refused(client: Client, gateway: FakeGateway) -> None:
    await client.encrypt("acme", "files", [b"x"])
    asked = len(gateway.requests)

    def elsewhere() -> None:
        asyncio.run(client.encrypt("acme", "files", [b"x"]))

    with pytest.raises(kcm.WrongLoop, match="another event loop"):
        await asyncio.to_thread(elsewhere)
    assert len(gateway.requests) == asked


async def test_a_closed_client_is_refused_and_so_is_what_waits(
    client: Client, gateway: FakeGateway
) -> None:
    asking = asyncio.Event()

    async def busy(subject: str, body: bytes) -> bytes | None:
        asking.set()
        await client.close()
        return failure(Code.BUSY)

    gateway.script = busy
    with pytest.raises(kcm.Closed):
        await client.encrypt("acme", "files", [bytes(500_000)] * 3)
    assert asking.is_set()
    with pytest.raises(kcm.Closed, match="connect again"):
        await client.encrypt_one("acme", "files", b"x")
    await client.close()


async def test_connecting_twice_with_one_call_is_refused(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    for made in (
        Client.connect(system.context_file, opener=system.open),
        Admin.open(system.context_file, opener=system.open),
    ):
        async with made:
            with pytest.raises(kcm.AlreadyConnected, match=r"call .*\(\) again"):
                await made.__aenter__()


def test_after_a_fork_neither_client_is_usable(tmp_path: Path) -> None:
    """In a process of its own, for a fork of the tests' one would take its threads' locks along."""
    program = f"""
import asyncio, os, sys
from pathlib import Path
from kcm import AfterFork, sync
from kcm._internal.client import Client
from tests.fakes.client import FakeSystem
system = FakeSystem(Path({str(tmp_path)!r}))
around = system.clock.around()

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except AfterFork as error:
            os._exit(7 if "after the fork" in str(error) else 1)
        except BaseException:
            os._exit(2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

with sync.Client(system.context_file, opener=system.open, around=around) as client:
    assert child(lambda: client.encrypt_one("acme", "files", b"x")) == 7
    assert child(client.close) == 0
    client.encrypt_one("acme", "files", b"x")

gateway = system.gateways["eu"]
gateway.closed = False
aio = Client(gateway, "eu", around)
assert child(lambda: asyncio.run(aio.encrypt("acme", "files", [b"x"]))) == 7
assert child(lambda: asyncio.run(aio.close())) == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_blocking_client_checks_arguments_too(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    with (
        sync.Client(system.context_file, opener=system.open) as client,
        pytest.raises(kcm.BadType, match=r"plaintexts\[0\]"),
    ):
        client.encrypt("acme", "files", ["x"])


@pytest.mark.parametrize(
    "error",
    [KcmError(Code.BUSY, "because"), error_for(Code.TENANT_KILLED, "because"), kcm.Closed("x")],
)
def test_an_exception_survives_the_way_from_another_process(error: KcmError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.code) == (type(error), str(error), error.code)


async def test_single_calls_that_share_a_message_raise_each_their_own(
    client: Client, gateway: FakeGateway
) -> None:
    async def say(subject: str, body: bytes) -> bytes | None:
        return failure(Code.TENANT_KILLED)

    gateway.script = say
    calls = (client.encrypt_one("acme", "files", b"x") for _ in range(3))
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [kcm.TenantKilled] * 3
    assert len({id(error) for error in errors}) == 3


async def test_text_from_the_wire_cannot_steer_a_terminal(
    client: Client, gateway: FakeGateway
) -> None:
    async def say(subject: str, body: bytes) -> bytes | None:
        return failure(Code.FORBIDDEN, "no\x1b[2J\r\nroot: fine\u2028\u202e")

    gateway.script = say
    with pytest.raises(kcm.Forbidden) as caught:
        await client.encrypt("acme", "files", [b"x"])
    assert str(caught.value) == "forbidden: no�[2J��root: fine��"
    assert str(caught.value).isprintable()
    assert len(error_for(Code.BUSY, "x" * 9999).detail) == CHARACTERS_MAX + 1
    assert printable("Ä b") == "Ä b"


def test_without_a_logging_set_up_nothing_is_printed() -> None:
    program = """
import logging, kcm, kcm._internal.client
import kcm_runtime.nats.connection
for name in ("kcm._internal.counts", "kcm_runtime.nats", "kcm_gateway.engine", "nats.aio.client"):
    logging.getLogger(name).error("chatter of %s", name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert logging.getLogger("kcm").handlers
