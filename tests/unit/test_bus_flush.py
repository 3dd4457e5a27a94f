"""A flush of the client is answered after what was written before it."""

import asyncio

from kcm_runtime.nats.client import ReadingClient

INFO = b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}\r\n'


async def serve(lines, reader, writer):
    """A broker that notes the first word of each line, and answers a question."""
    writer.write(INFO)
    while line := await reader.readline():
        word = line.split(b" ")[0].strip()
        if word in {b"SUB", b"PUB", b"PING"}:
            lines.append(word.decode())
        if word == b"PING":
            writer.write(b"PONG\r\n")
    writer.close()


async def test_what_waits_is_written_before_the_question():
    lines = []
    server = await asyncio.start_server(
        lambda reader, writer: serve(lines, reader, writer), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    client = ReadingClient()
    await client.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
    try:
        lines.clear()  # the question of the connection
        await client.subscribe("a")
        await client.publish("b", b"")
        await client.flush()
        assert lines == ["SUB", "PUB", "PING"]
    finally:
        await client.close()
        server.close()
        await server.wait_closed()
