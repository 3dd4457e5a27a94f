import asyncio
from pathlib import Path

import pytest
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import Pkcs11Uri, SoftkeyUri
from kcm_core.unsealer.pin_lockout import LOGINS_MAX, PinLockout


async def until(condition):
    while not condition():  # noqa: ASYNC110 - the condition is plain code, without an event
        await asyncio.sleep(0)


def rewrite_pin(uri, pin="12345"):
    Path(uri.pin_source).write_text(pin)


@pytest.fixture
def uri(tmp_path):
    (tmp_path / "pin").write_text("1234")
    return Pkcs11Uri("/m.so", token="t", object="k", pin_source=str(tmp_path / "pin"))


class Token:
    """Counts the tries; answers with an error if it was given one."""

    def __init__(self, logins, error=None):
        self.logins, self.error = logins, error
        self.tries = self.now = self.most = 0
        self.go = asyncio.Event()

    async def use(self, uri):
        async with self.logins.attempt(uri):
            self.tries += 1
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await self.go.wait()
            finally:
                self.now -= 1
            if self.error is not None:
                raise self.error

    async def all(self, uri, count):
        """Use it ``count`` times at once, once somebody waits inside."""
        tasks = [asyncio.create_task(self.use(uri)) for _ in range(count)]
        await until(lambda: self.now > 0)
        for _ in range(10):
            await asyncio.sleep(0)
        self.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)


def refusal():
    return L1Error(L1State.FORBIDDEN, "wrong", cls="PinIncorrect")


async def test_a_wrong_pin_is_tried_once_however_many_ask(uri):
    token = Token(PinLockout(), refusal())
    results = await token.all(uri, 20)
    assert token.tries == 1
    assert [result.state for result in results] == [L1State.FORBIDDEN] * 20
    with pytest.raises(L1Error, match="not tried again"):
        await token.use(uri)
    assert token.tries == 1


async def test_a_changed_file_is_tried_again(uri):
    logins = PinLockout()
    await Token(logins, refusal()).all(uri, 1)
    rewrite_pin(uri)
    token = Token(logins)
    assert await token.all(uri, 1) == [None]
    assert token.tries == 1


async def test_once_accepted_many_may_log_in_at_once(uri):
    logins = PinLockout()
    first = Token(logins)
    await first.all(uri, 5)
    assert first.most == 1
    second = Token(logins)
    await second.all(uri, 5)
    assert second.most == 5


async def test_a_refusal_after_an_acceptance_is_remembered_too(uri):
    logins = PinLockout()
    await Token(logins).all(uri, 1)
    await Token(logins, refusal()).all(uri, 1)
    token = Token(logins)
    with pytest.raises(L1Error, match="not tried again"):
        await token.use(uri)
    assert token.tries == 0


async def told(logins, uri, error=None):
    (result,) = await Token(logins, error).all(uri, 1)
    return None if result is None else result.state


async def test_a_pin_that_was_accepted_and_no_longer_is_was_changed_by_its_owner(uri):
    logins = PinLockout()
    assert await told(logins, uri) is None
    assert await told(logins, uri, refusal()) is L1State.FORBIDDEN
    with pytest.raises(L1Error) as caught:
        await Token(logins).use(uri)
    assert caught.value.state is L1State.FORBIDDEN


async def test_a_wrong_pin_that_somebody_wrote_over_a_right_one_is_no_refusal(uri):
    # Otherwise a slip in one Core's file would kill the key's tenants everywhere.
    logins = PinLockout()
    assert await told(logins, uri) is None
    rewrite_pin(uri)
    assert await told(logins, uri, refusal()) is L1State.UNREACHABLE
    with pytest.raises(L1Error, match="not tried again") as caught:
        await Token(logins).use(uri)
    assert caught.value.state is L1State.UNREACHABLE
    assert caught.value.cls == "PinIncorrect"
    rewrite_pin(uri, "123456")
    assert await told(logins, uri) is None
    assert await told(logins, uri, refusal()) is L1State.FORBIDDEN


@pytest.mark.parametrize("state", [L1State.UNREACHABLE, L1State.FORBIDDEN])
async def test_what_says_nothing_about_the_pin_teaches_nothing(uri, state):
    logins = PinLockout()
    await Token(logins, L1Error(state, cls="Whatever")).all(uri, 1)
    token = Token(logins)
    await token.all(uri, 3)
    assert (token.tries, token.most) == (3, 1)


@pytest.mark.parametrize("state", [L1State.DISABLED, L1State.DELETED, L1State.INVALID])
async def test_what_only_a_login_can_see_proves_the_pin(uri, state):
    logins = PinLockout()
    await Token(logins, L1Error(state)).all(uri, 1)
    token = Token(logins)
    await token.all(uri, 3)
    assert token.most == 3


async def test_a_cancelled_first_login_lets_the_next_one_in(uri):
    logins = PinLockout()
    first = Token(logins)
    task = asyncio.create_task(first.use(uri))
    await until(lambda: first.now > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second = Token(logins)
    assert await second.all(uri, 1) == [None]


async def test_tokens_do_not_wait_for_one_another(uri):
    token = Token(PinLockout())
    other = Pkcs11Uri("/m.so", token="u", object="k", pin_source=uri.pin_source)
    tasks = [asyncio.create_task(token.use(each)) for each in (uri, other)]
    await until(lambda: token.now == 2)
    token.go.set()
    await asyncio.gather(*tasks)


async def test_without_a_pin_there_is_nothing_to_guard(uri, tmp_path):
    for each in (
        SoftkeyUri("/x"),
        Pkcs11Uri("/m.so", token="t", object="k"),
        Pkcs11Uri("/m.so", token="t", object="k", pin_source=str(tmp_path / "nowhere")),
    ):
        token = Token(PinLockout())
        await token.all(each, 3)
        assert token.most == 3


async def test_the_memory_is_bounded(uri):
    """The token that was used longest ago is forgotten, with what it said of its PIN."""
    logins = PinLockout()

    def slot(number):
        return Pkcs11Uri("/m.so", slot_id=number, object="k", pin_source=uri.pin_source)

    for number in range(2):
        assert await told(logins, slot(number), refusal()) is L1State.FORBIDDEN
    for number in range(2, LOGINS_MAX + 1):
        async with logins.attempt(slot(number)):
            pass
    remembered, forgotten = Token(logins), Token(logins)
    with pytest.raises(L1Error, match="not tried again"):
        await remembered.use(slot(1))
    await forgotten.all(slot(0), 1)
    assert (remembered.tries, forgotten.tries) == (0, 1)
