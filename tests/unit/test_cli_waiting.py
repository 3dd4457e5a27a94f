"""`kcm encrypt` and `decrypt` while no key comes: said early, and with the hint that fits."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from kcm._internal.transport import open_nats
from kcm.cli import hold_progress
from kcm.cli.error_report import explain
from kcm.cli.main import run
from kcm.cli.wait_notice import RequestNotice
from kcm.errors import ServiceError, Unavailable, Unreached
from kcm.exit_codes import Exit
from kcm_runtime.config import BusAddress
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure

from tests.unit.operator_rig import Desk

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

NOBODY = "no instance serves this at the moment"


@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (Unavailable(NOBODY), "a Gateway replied, so check the region's Cores: `kcm region list`"),
        (Unavailable("the broker of a Core is away"), "a Gateway replied"),
        (Unreached(NOBODY), "check that a Gateway of the region runs"),
        (KcmError(Code.UNAVAILABLE, NOBODY), "check that a Gateway of the region runs"),
        (Unreached("the broker cannot be reached"), "check that the region's broker runs"),
        (Unreached("no program listens at nats://eu:4222"), "check that the region's broker runs"),
    ],
    ids=str,
)
def test_the_hint_is_about_what_is_away(command: str, error: KcmError, hint: str) -> None:
    assert explain(error, command).hint.startswith(hint)


def test_the_hint_of_an_audit_command_is_about_the_broker_if_that_is_away() -> None:
    error = Unreached("no program listens at nats://eu:4222")
    assert explain(error, "audit tail").hint.startswith("check that the region's broker runs")
    assert "region's Auditor runs" in explain(Unreached(NOBODY), "audit status").hint


async def test_a_broker_that_is_away_was_not_reached(desk: Desk) -> None:
    file = desk.system.directory / "app.password"
    address = BusAddress(url="nats://127.0.0.1:1", user="app", password_file=file)
    with pytest.raises(ServiceError) as caught:
        await open_nats(address, "test")
    assert isinstance(caught.value, Unreached)


@pytest.mark.parametrize("form", ["json", "table"])
@pytest.mark.parametrize("more", [(), ("--record",), ("--fields", "ssn", "--as", "csv")])
def test_it_is_said_early_and_once_that_no_result_comes(
    desk: Desk,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    more: tuple[str, ...],
) -> None:
    monkeypatch.setattr(hold_progress, "TELL_S", 0.0)

    async def refuse(subject: str, body: bytes) -> bytes:
        await asyncio.sleep(0.001)
        return encode(Failure(v=1, error=Code.UNAVAILABLE, detail=NOBODY))

    desk.system.gateways["eu"].script = refuse
    plain = desk.system.directory / "plain"
    plain.write_text("name,ssn\nann,7\n")
    code = run(
        ["encrypt", str(plain), "--tenant", "acme", "--service", "files", *more, "-o",
         str(plain.with_name("out")), "--context", str(desk.system.context_file), "--format", form],
        desk.system.open,
        desk.system.clock.around(),
    )  # fmt: skip
    first, *rest = capsys.readouterr().err.splitlines()
    assert code == Exit.UNAVAILABLE
    if form == "json":
        assert json.loads(first) == {"asking": "encryption", "silent": ["eu"]}
        assert "a Gateway replied" in json.loads(rest[-1])["hint"]
    else:
        assert first == "encryption: no result yet from region eu; trying again"
        assert [line.partition(":")[0] for line in rest] == ["error", "hint"]


def test_the_input_is_not_read_while_a_request_is_timed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow input is not a region without a reply."""
    seen: list[str] = []

    class Input(io.BytesIO):
        def readinto1(self, buffer: WriteableBuffer) -> int:
            seen.append("read")
            return super().readinto1(buffer)

    @contextmanager
    def waiting(_: RequestNotice) -> Iterator[None]:
        seen.append("asks")
        yield
        seen.append("has")

    monkeypatch.setattr(RequestNotice, "waiting", waiting)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Input(bytes(9 << 20))))
    out = str(desk.system.directory / "out")
    who = ("--tenant", "acme", "--service", "files", "-o", out, "--format", "json")
    assert desk.run("encrypt", "-", *who)[0] == Exit.OK
    assert seen.count("asks") > 1
    assert all(after == "has" for one, after in pairwise(seen) if one == "asks")
