"""TLS before anything else: no login and no greeting leaves in clear."""

import asyncio
import ssl

import pytest
from nats.errors import Error

from tests.integration import broker_rig as rig

APP = rig.scope("application", "region")


@pytest.fixture
async def region(tmp_path):
    async with rig.running(tmp_path) as one:
        yield one


async def test_a_man_in_the_middle_that_removes_tls_gets_no_login(region):
    """It speaks first, says that there is no TLS, and gets the first bytes of a TLS handshake."""
    got = []

    async def pretend(reader, writer):
        writer.write(b'INFO {"server_id":"x","nonce":"abc","max_payload":1048576}\r\n')
        got.append(await reader.read(4096))
        writer.close()

    fake = await asyncio.start_server(pretend, rig.HOST, 0)
    async with fake:
        port = fake.sockets[0].getsockname()[1]
        for scheme in ("tls", "nats"):
            with pytest.raises((Error, OSError, TimeoutError)):
                await region.join(APP, at=f"{scheme}://{rig.HOST}:{port}")
    assert len(got) == 2
    for first in got:
        assert first[:2] == b"\x16\x03"  # a handshake record
        assert b"CONNECT" not in first
        assert b"eyJ" not in first


async def test_the_server_says_nothing_before_the_handshake(region):
    """A client that waits for the region.server's greeting in clear gets none."""
    reader, writer = await asyncio.open_connection(rig.HOST, region.server.port)
    writer.write(b"CONNECT {}\r\nPING\r\n")
    assert b"INFO" not in await asyncio.wait_for(reader.read(4096), 10)
    writer.close()
    old = ssl.create_default_context(cafile=str(region.ca.directory / "ca.pem"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    stranger = ssl.create_default_context()
    for context in (old, stranger):
        with pytest.raises((Error, OSError, TimeoutError)):
            await region.join(APP, context=context)


async def test_a_client_certificate_is_needed_where_it_is_asked_for(region):
    strict = rig.start_region(region.directory / "strict", region.realm, region.ca, verify=True)
    try:
        with pytest.raises((Error, OSError, TimeoutError)):
            await region.join(APP, at=strict)
        foreign = rig.Ca(region.directory / "foreign").client("shop")
        foreign.load_verify_locations(str(region.ca.directory / "ca.pem"))
        with pytest.raises((Error, OSError, TimeoutError)):
            await region.join(APP, at=strict, context=foreign)
        assert (
            await region.join(APP, at=strict, context=region.ca.client("shop"))
        ).client.is_connected
    finally:
        strict.stop()
