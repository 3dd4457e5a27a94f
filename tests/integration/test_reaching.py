"""Why a client does not get to its broker: each reason has its own text, address and exit code."""

import asyncio
import contextlib
import datetime as dt
import json
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kcm._internal import transport
from kcm._internal.client_context import ContextError, NotLetIn
from kcm._internal.transport import open_nats
from kcm.cli.error_report import explain
from kcm.errors import ServiceError, Unavailable
from kcm.exit_codes import Exit
from kcm_runtime.config import BusAddress

from tests.fakes.client import fake_credentials
from tests.integration.auditor_rig import SERVER
from tests.integration.bus.broker import running


@pytest.fixture
def broker(tmp_path):
    with running(tmp_path) as one:
        yield one


@dataclass
class Secure:
    """A broker that speaks TLS, and the file with its own authority's certificate."""

    port: int
    authority: str


def self_signed(directory):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture
def secure(tmp_path):
    self_signed(tmp_path)
    settings = {
        "host": "127.0.0.1",
        "port": -1,
        "tls": {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")},
        "authorization": {"user": "u", "password": "pw"},
    }
    (tmp_path / "conf").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [str(SERVER), "--config", str(tmp_path / "conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "Listening for client connections" in line:
            break
    port = int(line.rpartition(":")[2])
    yield Secure(port, str(tmp_path / "cert.pem"))
    process.terminate()
    process.wait(20)
    process.stderr.close()


@contextlib.asynccontextmanager
async def listening(says):
    """A port where something answers that is no broker."""
    leaving = asyncio.Event()

    async def serve(reader, writer):
        if says is None:
            await leaving.wait()
        else:
            writer.write(says)
            if says:
                await reader.read(4096)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        leaving.set()
        server.close()
        await server.wait_closed()


@pytest.fixture
def quick(monkeypatch):
    """A silent port is not waited for."""
    monkeypatch.setattr(transport, "CONNECT_S", 2.0)


@pytest.fixture
def address(tmp_path):
    (tmp_path / "password").write_text("pw\n")

    def make(url, **fields):
        given = {"url": url, "user": "u", "password_file": tmp_path / "password"} | fields
        return BusAddress(**given)

    return make


async def refusal(address):
    with pytest.raises(ServiceError) as caught:
        await open_nats(address, "test")
    return caught.value


@pytest.mark.parametrize("fault", ["password", "certificate"])
async def test_a_rejection_is_reported_before_the_time_is_over(
    secure, address, tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(transport, "CONNECT_S", 3600)
    if fault == "password":
        monkeypatch.setenv("SSL_CERT_FILE", secure.authority)
        (tmp_path / "password").write_text("wrong")
    async with asyncio.timeout(20):
        assert isinstance(await refusal(address(f"tls://localhost:{secure.port}")), NotLetIn)


async def test_an_attempt_that_is_given_up_waits_for_no_broker(tmp_path):
    """A broker that looks an account up takes its time, and reads nothing meanwhile."""
    self_signed(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    reached = asyncio.Event()

    async def think(reader, writer):
        info = {"server_id": "x", "version": "2.14.0", "max_payload": 1 << 20, "nonce": "n"}
        writer.write(b"INFO " + json.dumps(info | {"tls_required": True}).encode() + b"\r\n")
        if (await reader.readline()).startswith(b"CONNECT"):
            writer.transport.pause_reading()
            reached.set()

    server = await asyncio.start_server(think, "127.0.0.1", 0, ssl=server_side)
    (tmp_path / "creds").write_text(fake_credentials("operator"))
    (tmp_path / "creds").chmod(0o600)
    address = BusAddress(
        url=f"tls://localhost:{server.sockets[0].getsockname()[1]}",
        credentials=tmp_path / "creds",
        ca=tmp_path / "cert.pem",
    )
    opening = asyncio.ensure_future(open_nats(address, "test"))
    async with asyncio.timeout(4):
        await reached.wait()
    opening.cancel()
    begun = time.monotonic()
    await asyncio.wait({opening})
    assert opening.cancelled()
    assert time.monotonic() - begun < 2
    server.close()


@pytest.mark.usefixtures("quick")
async def test_a_wrong_password_is_the_contexts_fault(secure, address, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", secure.authority)
    (tmp_path / "password").write_text("wrong")
    where = f"tls://localhost:{secure.port}"
    error = await refusal(address(where))
    assert isinstance(error, NotLetIn)
    assert isinstance(error, ContextError)
    assert error.detail == f"the broker at {where} rejects u: no such user, or another password"
    report = explain(error)
    assert (report.exit_code, report.code) == (Exit.USAGE, "context")
    assert str(tmp_path / "password") in report.hint


@pytest.mark.usefixtures("quick")
async def test_credentials_that_were_revoked_are_the_contexts_fault(broker):
    await broker.revoke_visitor()
    address = broker.address()
    error = await refusal(address)
    assert isinstance(error, NotLetIn)
    assert error.detail == (
        f"the broker at {address.url} rejects these credentials: "
        "they have expired, were revoked, or are for another broker"
    )
    report = explain(error)
    assert (report.exit_code, report.code) == (Exit.USAGE, "context")
    assert str(address.credentials) in report.hint


@pytest.mark.usefixtures("quick")
async def test_the_broker_of_another_authority_is_not_believed(broker, secure):
    address = broker.address().model_copy(update={"ca": Path(secure.authority)})
    error = await refusal(address)
    assert isinstance(error, NotLetIn)
    assert f"the certificate of the broker at {address.url} is not trusted" in error.detail
    assert "`ca` in the context" in explain(error).hint


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("file", ["credentials", "password_file"])
async def test_a_file_that_is_missing_is_the_contexts_fault(broker, address, tmp_path, file):
    """It is a failure of that region alone, as every other one is."""
    right = address(broker.address().url) if file == "password_file" else broker.address()
    error = await refusal(right.model_copy(update={file: tmp_path / "none"}))
    assert isinstance(error, ContextError)
    assert f"cannot read {tmp_path / 'none'}" in error.detail
    assert explain(error).exit_code is Exit.USAGE


@pytest.mark.usefixtures("quick")
async def test_a_password_file_that_is_no_text_is_the_contexts_fault(broker, address, tmp_path):
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    error = await refusal(address(broker.address().url, password_file=tmp_path / "odd"))
    assert isinstance(error, ContextError)
    assert error.detail == f"{tmp_path / 'odd'} is not UTF-8 text"


@pytest.mark.usefixtures("quick")
async def test_a_file_that_has_no_credentials_is_the_contexts_fault(broker, tmp_path):
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    (tmp_path / "odd").chmod(0o600)
    error = await refusal(broker.address().model_copy(update={"credentials": tmp_path / "odd"}))
    assert isinstance(error, ContextError)
    assert str(tmp_path / "odd") in error.detail


@pytest.mark.usefixtures("quick")
async def test_a_certificate_of_another_authority_is_not_believed(secure, address):
    error = await refusal(address(f"tls://localhost:{secure.port}"))
    assert isinstance(error, NotLetIn)
    assert f"the certificate of the broker at tls://localhost:{secure.port}" in error.detail
    assert "self-signed certificate" in error.detail
    assert "SSL_CERT_FILE" in explain(error).hint
    assert explain(error).exit_code is Exit.USAGE


@pytest.mark.usefixtures("quick")
async def test_a_certificate_for_another_name_is_not_believed(secure, address, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", secure.authority)
    error = await refusal(address(f"tls://127.0.0.1:{secure.port}"))
    assert "IP address mismatch" in error.detail


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_a_certificate_of_the_right_authority_is_believed(
    secure, address, monkeypatch, scheme
):
    monkeypatch.setenv("SSL_CERT_FILE", secure.authority)
    connection = await open_nats(address(f"{scheme}://localhost:{secure.port}"), "test")
    await connection.close()


@pytest.mark.usefixtures("quick")
async def test_no_password_goes_to_a_broker_without_tls(address):
    """Whoever sits between could say that there is no TLS, and read it."""
    heard = bytearray()

    async def serve(reader, writer):
        writer.write(b'INFO {"server_id":"x","version":"2.14.0","max_payload":1048576}\r\n')
        while data := await reader.read(4096):
            heard.extend(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        error = await refusal(address(f"tls://127.0.0.1:{port}"))
    finally:
        server.close()
        await server.wait_closed()
    assert bytes(heard) == b""
    assert isinstance(error, NotLetIn)
    assert f"the broker at tls://127.0.0.1:{port} offers no TLS" in error.detail
    assert explain(error).exit_code is Exit.USAGE


@pytest.mark.usefixtures("quick")
async def test_a_port_that_says_nothing_is_not_a_wrong_password(address):
    async with listening(None) as port:
        error = await refusal(address(f"nats://127.0.0.1:{port}"))
    assert isinstance(error, Unavailable)
    assert not isinstance(error, NotLetIn)
    where = f"nats://127.0.0.1:{port}"
    text = f"the broker at {where} accepts the connection but is silent for 2 s"
    assert error.detail == text
    assert explain(error).exit_code is Exit.UNAVAILABLE


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"INFO {\r\n"])
async def test_a_port_of_something_else_is_not_a_wrong_password(address, says):
    async with listening(says) as port:
        error = await refusal(address(f"nats://127.0.0.1:{port}"))
    assert not isinstance(error, NotLetIn)
    assert f"the server at nats://127.0.0.1:{port} is not a broker" in error.detail
    assert explain(error).exit_code is Exit.UNAVAILABLE


@pytest.mark.usefixtures("quick")
async def test_a_broker_that_is_full_says_so(address):
    says = b"INFO {}\r\n-ERR 'maximum connections exceeded'\r\n"
    async with listening(says) as port:
        error = await refusal(address(f"nats://127.0.0.1:{port}"))
    assert "has reached its maximum number of connections" in error.detail
    assert explain(error).exit_code is Exit.UNAVAILABLE


@pytest.mark.usefixtures("quick")
async def test_no_password_of_an_address_is_shown(address):
    async with listening(None) as port:
        error = await refusal(address(f"nats://me:secret@127.0.0.1:{port}"))
    assert "secret" not in error.detail
    assert f"nats://127.0.0.1:{port}" in error.detail


@pytest.mark.usefixtures("quick")
async def test_one_node_that_rejects_the_client_is_not_the_whole_broker(secure, address, tmp_path):
    """It may be hostile, or not up to date, while the others restart: a kill goes on trying."""
    (tmp_path / "password").write_text("wrong")
    others = {"also": ("tls://localhost:1", "tls://localhost:2"), "ca": Path(secure.authority)}
    error = await refusal(address(f"tls://localhost:{secure.port}").model_copy(update=others))
    assert not isinstance(error, NotLetIn)
    assert error.retryable
