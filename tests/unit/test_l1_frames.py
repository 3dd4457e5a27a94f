"""What arrives over the socket or the pipe is believed only if it is exactly a request, or an
answer. Reading goes through a real pipe."""

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.frames import (
    BLOB_MAX,
    META_MAX,
    Ask,
    FrameError,
    Header,
    Operation,
    Told,
    answer_parts,
    read_request,
    request_parts,
)
from kcm_core.unsealer.pipe_reader import read_frame
from kcm_core.unsealer.worker import Answer, write

ASK = Ask(uri="softkey:/x", context=b"c", mechanism="aes-gcm", deadline_ms=1000)


def packet(operation=Operation.UNWRAP, ask=ASK, payload=b"blob"):
    header, meta = request_parts(operation, ask, len(payload))
    return header + payload + meta


def test_a_request_survives():
    request = read_request(memoryview(packet()))
    assert (request.operation, request.ask, bytes(request.payload)) == (
        Operation.UNWRAP,
        ASK,
        b"blob",
    )


@pytest.mark.parametrize(
    ("operation", "ask", "payload"),
    [
        (Operation.UNWRAP, ASK, b""),
        (Operation.UNWRAP, ASK, bytes(BLOB_MAX + 1)),
        (Operation.UNWRAP, ASK.model_copy(update={"mechanism": ""}), b"blob"),
        (Operation.UNWRAP, ASK.model_copy(update={"digest": bytes(32)}), b"blob"),
        (Operation.WRAP, ASK, b"plaintext"),
        (Operation.WRAP, ASK.model_copy(update={"mechanism": ""}), bytes(257)),
        (Operation.PROBE, ASK, b"blob"),
        (Operation.PROBE, ASK.model_copy(update={"digest": bytes(31)}), b"blob"),
        (Operation.PING, ASK, b"payload"),
        (Operation.INSPECT, ASK, b""),
        (Operation.INSPECT, ASK.model_copy(update={"mechanism": ""}), b"payload"),
    ],
)
def test_a_request_out_of_bounds_is_not_even_sent(operation, ask, payload):
    with pytest.raises(FrameError):
        packet(operation, ask, payload)


@given(st.binary(max_size=64))
def test_random_bytes_are_no_request(data):
    with pytest.raises(FrameError):
        read_request(memoryview(data))


@given(st.data())
def test_a_request_with_one_changed_byte_is_refused_or_says_so_itself(data):
    good = packet()
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        request = read_request(memoryview(changed))
    except FrameError:
        return
    header, meta = request_parts(request.operation, request.ask, len(request.payload))
    assert header + bytes(request.payload) + meta == bytes(changed)


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_cut_or_longer_request_is_refused(cut):
    for wrong in (packet()[:-cut], packet() + bytes(cut)):
        with pytest.raises(FrameError):
            read_request(memoryview(wrong))


async def read(*chunks, out=None, end=True):
    """Read what is written in these chunks, each after the reader has taken the one before."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    try:
        task = asyncio.create_task(read_frame(read_end, out))
        for chunk in chunks:
            await asyncio.sleep(0)
            os.write(write_end, chunk)
            await asyncio.sleep(0)
        if end:
            os.close(write_end)
        async with asyncio.timeout(10):
            return await task
    finally:
        os.close(read_end)
        if not end:
            os.close(write_end)


def frame(state=L1State.ENABLED, payload=b"", **told):
    header, meta = answer_parts(state, Told(**told), len(payload))
    return header + payload + meta


async def state_after(*chunks, out=None, end=True):
    with pytest.raises(L1Error) as caught:
        await read(*chunks, out=out, end=end)
    return caught.value.state


async def test_the_payload_lands_in_the_callers_memory_and_nowhere_else():
    out = bytearray(b"\xaa" * 8)
    got = await read(frame(payload=b"plaintxt", key_version="7"), out=memoryview(out), end=False)
    assert (got.state, got.told.key_version) == (L1State.ENABLED, "7")
    assert bytes(out) == b"plaintxt"
    assert got.payload == b""
    out.append(0)  # raises BufferError as long as a view of it is left


@pytest.mark.parametrize("size", [1, 3, 11, 12, 13, 40])
async def test_an_answer_may_arrive_in_pieces(size):
    whole = frame(payload=bytes(range(40)), principal="somebody")
    out = bytearray(40)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    got = await read(*pieces, out=memoryview(out))
    assert bytes(out) == bytes(range(40))
    assert got.told.principal == "somebody"


@pytest.mark.parametrize("size", [0, 7, 9])
async def test_a_plaintext_of_another_length_is_invalid(size):
    out = bytearray(8)
    assert await state_after(frame(payload=b"p" * size), out=memoryview(out)) is L1State.INVALID
    assert bytes(out) == bytes(8)


@pytest.mark.parametrize("keep", [0, 1, 12, 15, 20])
async def test_an_answer_that_ends_early_is_unreachable(keep):
    out = bytearray(8)
    whole = frame(payload=b"plaintxt", principal="somebody")
    assert await state_after(whole[:keep], out=memoryview(out)) is L1State.UNREACHABLE


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 64,
        Header(99, 0, 0).pack(),
        Header(0, 0, BLOB_MAX + 1).pack(),
        Header(0, META_MAX + 1, 0).pack(),
        Header(1, 0, 4).pack() + b"leak",
        Header(0, 4, 0).pack() + b"junk",
        Header(0, 0, 0).pack(),
    ],
)
async def test_garbage_is_invalid(garbage):
    assert await state_after(garbage) is L1State.INVALID


async def test_an_error_comes_with_safe_texts_only():
    header, meta = answer_parts(L1State.DISABLED, Told(detail="\x1b[2J", cls="A\nB"), 0)
    got = await read(header + meta)
    assert (got.state, got.told.detail, got.told.cls) == (L1State.DISABLED, "?[2J", "A?B")


async def test_the_longest_answer_fits_into_an_empty_pipe():
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    told = Told(**dict.fromkeys(("key_version", "principal", "detail", "cls"), "x" * 200))
    try:
        write(write_end, Answer(L1State.ENABLED, told, bytes(BLOB_MAX)))
        got = await read_frame(read_end, None)
    finally:
        os.close(read_end)
        os.close(write_end)
    assert got.payload == bytes(BLOB_MAX)
