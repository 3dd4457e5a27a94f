"""Every state that a key can be brought into, and everything that can go wrong on the way to it.

All through the real unsealer, and, for clouds, the real SDK over a real connection.
"""

from __future__ import annotations

import re
import time

import pytest
from kcm_core.providers.context import provider_context
from kcm_core.providers.remediation import fix
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import parse
from kcm_core.unsealer.client import Unsealer
from kcm_core.unsealer.key_gate import PAUSES_S
from kcm_core.unsealer.worker import MEMORY_MAX

from tests.integration.living import eventually
from tests.integration.unsealing import failure
from tests.l1.stand import Trouble
from tests.l1.stands import CLOUDS, MADE

CONTEXT = provider_context("acme", "eu-de", 1)
INNER = bytes(range(72))
D = 30.0
BUFFERS_MAX = 32 * 2**20
"""Bytes that may be under way between two processes, or were not data when they were counted."""

SHORT_S = 1.5
"""A deadline that a key which does not answer runs into."""

clouds = pytest.mark.parametrize("shared", CLOUDS, indirect=True)


def wrapped(unsealer, stand, uri=None, deadline_s=D):
    return unsealer.wrap(uri or stand.uri, INNER, CONTEXT, deadline_s=deadline_s)


async def opened(unsealer, stand, made, uri=None, deadline_s=D):
    out = bytearray(len(INNER))
    await unsealer.unwrap_into(
        uri or stand.uri, made.blob, CONTEXT, made.mechanism, memoryview(out), deadline_s=deadline_s
    )
    return bytes(out)


def states(name):
    """Those that a key can be brought into, and out of.

    A token only knows keys that are there, may not be used, or are gone, which is for good:
    test_unsealer_softhsm has a token of its own for that.
    """
    if name == "pkcs11":
        return [L1State.DISABLED]
    return [state for state in L1State if state not in {L1State.ENABLED, L1State.INVALID}]


@pytest.mark.parametrize(
    ("shared", "state"),
    [(name, state) for name in sorted(MADE) for state in states(name)],
    indirect=["shared"],
)
async def test_a_state_is_seen_as_what_it_is_and_ends(unsealer, stand, state):
    made = await wrapped(unsealer, stand)
    stand.put(state)
    error = await failure(opened(unsealer, stand, made))
    assert error.state is state, error
    stand.put(L1State.ENABLED)
    assert await opened(unsealer, stand, made) == INNER


@clouds
async def test_a_change_takes_as_long_as_its_cloud_does(unsealer, stand):
    made = await wrapped(unsealer, stand)
    stand.settles(1.0)
    stand.put(L1State.DISABLED)
    assert await opened(unsealer, stand, made) == INNER

    async def refused():
        try:
            await opened(unsealer, stand, made)
        except L1Error as error:
            return error.state is L1State.DISABLED
        return False

    await eventually(refused)


@clouds
@pytest.mark.parametrize(
    "trouble", [Trouble.UNAVAILABLE, Trouble.RESET, Trouble.THROTTLE], ids=lambda one: one.name
)
async def test_trouble_is_no_refusal_and_is_not_tried_again(unsealer, stand, trouble):
    made = await wrapped(unsealer, stand)
    before = len(stand.calls)
    stand.trouble(trouble)
    error = await failure(opened(unsealer, stand, made))
    assert error.state is L1State.UNREACHABLE
    assert error.cls
    made_anew = stand.calls[before:]
    assert made_anew
    assert len(set(made_anew)) == len(made_anew), "the same request was made twice"


@clouds
async def test_a_clock_that_is_minutes_off_is_named_and_refuses_nothing(unsealer, stand):
    made = await wrapped(unsealer, stand)
    stand.trouble(Trouble.SKEW)
    error = await failure(opened(unsealer, stand, made))
    assert error.state is L1State.UNREACHABLE
    found = re.search(r"this machine's clock is (\d+) s behind the provider's", error.detail)
    assert found is not None, error.detail
    assert 590 <= int(found[1]) <= 600
    assert "set this machine's clock" in fix(parse(stand.uri), error)


@clouds
async def test_a_key_that_hangs_ends_with_the_deadline_after_one_request(unsealer, stand):
    made = await wrapped(unsealer, stand)
    before = len(stand.calls)
    stand.trouble(Trouble.HANG)
    began = time.monotonic()
    error = await failure(opened(unsealer, stand, made, deadline_s=SHORT_S))
    assert error.state is L1State.UNREACHABLE
    assert time.monotonic() - began < SHORT_S + 5  # whatever the machine has to do beside
    assert len(stand.calls) <= before + 1


@clouds
async def test_a_key_that_hangs_is_given_up_without_a_deadline_too(unsealer, stand):
    made = await wrapped(unsealer, stand)
    stand.trouble(Trouble.HANG)
    error = await failure(opened(unsealer, stand, made, deadline_s=60))
    assert error.state is L1State.UNREACHABLE
    assert error.cls != "TimeoutError"  # it was the provider's own bound


@pytest.mark.parametrize("shared", ["awskms", "azurekv"], indirect=True)
async def test_nobody_is_sent_elsewhere_with_what_was_wrapped(unsealer, stand):
    # gRPC, and so Google, knows no such thing.
    made = await wrapped(unsealer, stand)
    stand.trouble(Trouble.REDIRECT)
    error = await failure(opened(unsealer, stand, made))
    assert error.state is L1State.UNREACHABLE
    assert "followed" not in stand.calls


@clouds
async def test_an_answer_without_an_end_takes_neither_the_memory_nor_the_time(unsealer, stand):
    made = await wrapped(unsealer, stand)
    stand.trouble(Trouble.ENDLESS)
    error = await failure(opened(unsealer, stand, made, deadline_s=60))
    assert error.state is L1State.UNREACHABLE
    assert error.cls != "TimeoutError"  # the child was stopped before
    if stand.name != "gcpkms":  # gRPC takes no answer of more than 4 MiB

        async def sent():
            return any(call.startswith("sent:") for call in stand.calls)

        await eventually(sent)
        taken = max(int(call[5:]) for call in stand.calls if call.startswith("sent:"))
        assert taken <= MEMORY_MAX + BUFFERS_MAX
    stand.trouble(Trouble.NONE)
    assert await opened(unsealer, stand, made) == INNER


@clouds
async def test_a_slow_answer_is_an_answer(unsealer, stand):
    stand.trouble(Trouble.DELAY)
    made = await wrapped(unsealer, stand)
    assert await opened(unsealer, stand, made) == INNER


@clouds
async def test_what_is_corrupted_on_the_way_is_never_believed(unsealer, stand):
    made = await wrapped(unsealer, stand)
    stand.trouble(Trouble.CORRUPT)
    error = await failure(wrapped(unsealer, stand))
    assert error.state is L1State.INVALID
    if stand.name == "gcpkms":  # the others have no checksum: the nested blob notices it
        assert (await failure(opened(unsealer, stand, made))).state is L1State.INVALID


@clouds
async def test_a_storm_on_a_silent_key_makes_few_requests(unsealer, stand):
    import asyncio

    made = await wrapped(unsealer, stand)
    before = len(stand.calls)
    stand.trouble(Trouble.UNAVAILABLE)
    errors = await asyncio.gather(*(failure(opened(unsealer, stand, made)) for _ in range(200)))
    assert {error.state for error in errors} == {L1State.UNREACHABLE}
    assert len(stand.calls) - before <= 2 * (2 + len(PAUSES_S))


@clouds
async def test_another_key_opens_nothing(unsealer, stand):
    made = await wrapped(unsealer, stand)
    other = (stand.directory / "other").read_text()
    error = await failure(opened(unsealer, stand, made, other))
    assert error.state is L1State.INVALID


@clouds
async def test_a_key_of_another_kind_is_not_used(unsealer, stand):
    for name in ("signing", "elliptic"):
        path = stand.directory / name
        if path.exists():
            error = await failure(wrapped(unsealer, stand, path.read_text()))
            assert error.state is L1State.UNREACHABLE
            assert (
                "kind" in error.detail
                or "operations" in error.detail
                or "understand" in error.detail
            )


@clouds
async def test_a_port_where_nobody_listens_is_unreachable(stand):
    import re

    dead = re.sub(r"127\.0\.0\.1:[0-9]+", "127.0.0.1:1", stand.uri)
    unsealer = Unsealer({**stand.environment, "KCM_L1_ENDPOINTS": "127.0.0.1:1"})
    await unsealer.start()
    try:
        error = await failure(wrapped(unsealer, stand, dead))
        assert error.state is L1State.UNREACHABLE
        assert error.cls
    finally:
        await unsealer.close()


@clouds
async def test_a_server_that_cannot_prove_itself_is_not_believed(unsealer, stand, tmp_path):
    from tests.l1.servers import tls

    tls.make(tmp_path)
    wrong = stand.uri.replace(str(stand.directory / "ca.pem"), str(tmp_path / "ca.pem"))
    error = await failure(wrapped(unsealer, stand, wrong))
    assert error.state is L1State.UNREACHABLE
