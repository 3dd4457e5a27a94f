"""`kcm broker push`: what it says if it cannot begin."""

from __future__ import annotations

import pytest
from kcm_deployment.pushing import PushConfig, PushError, push
from kcm_runtime.clock import SystemClock

from tests.fakes.broker import FirstWords


def config(bus) -> PushConfig:
    return PushConfig(
        operators=("O",), nodes=1, system_account="A", pusher="A", tokens=("t",), bus=bus
    )


@pytest.fixture
async def old_broker():
    one = FirstWords("2.12.6")
    await one.start()
    yield one
    await one.close()


async def test_an_old_broker_gets_no_accounts(old_broker, tmp_path) -> None:
    with pytest.raises(PushError, match="known vulnerabilities"):
        await push(config(old_broker.address(tmp_path)), SystemClock())


async def test_a_login_that_cannot_be_read_is_named(old_broker, tmp_path) -> None:
    bus = old_broker.address(tmp_path)
    assert bus.password_file is not None
    bus.password_file.unlink()
    with pytest.raises(PushError, match=f"cannot read {bus.password_file}"):
        await push(config(bus), SystemClock())
    assert not old_broker.came
