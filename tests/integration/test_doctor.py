"""``kcm doctor`` at real brokers: one as it should be, and some that lack what they need."""

import asyncio
import contextlib
import datetime as dt
import json
import secrets
from dataclasses import dataclass

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_broker.certificates import Authority
from kcm_broker.roles import inbox_prefix
from kcm_deployment.doctor.checks.permissions import attempts
from kcm_deployment.doctor.checks.wire import check_wire
from kcm_deployment.doctor.wire import Place, look
from kcm_runtime.files.identity_file import create_identity
from kcm_runtime.nats import credentials
from kcm_runtime.nats.provision import KEYS, _wanted
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.roster import Instance, Role, Roster
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT

from tests.integration import broker_rig as rig

TRIED = {one.check for one in attempts(None)}
BUSES = ("region", "control", "vault")


@dataclass
class Desk:
    """Runs the command, and has what it found."""

    capsys: pytest.CaptureFixture

    async def doctor(self, *arguments):
        self.capsys.readouterr()
        code = await asyncio.to_thread(run, ["doctor", "--no-machine", *arguments, "-o", "json"])
        out = self.capsys.readouterr().out
        return code, json.loads(out)["findings"], out


@pytest.fixture
def desk(capsys):
    return Desk(capsys)


def states(findings):
    return {(one["subject"], one["check"]): one["state"] for one in findings}


def secret(path, content):
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def configuration(directory, buses):
    """A Core's file, with what it names."""
    state = directory / "state"
    state.mkdir(mode=0o700)
    root = create_identity(ROOT, str(directory / "root"), "acme")
    core = create_identity("core-1", str(directory / "identity"), "acme")
    member = Instance(
        instance="core-1",
        role=Role.CORE,
        region="eu",
        public_key=core.public,
        grants=[],
    )
    roster = Roster(
        system="acme", version=1, issued_ms=1, instances=[member], operators=[], regions=[]
    )
    signed = encode(root.sign(Kind.ROSTER, roster))
    lines = [
        'instance = "core-1"',
        'region = "eu"',
        f'root_public = "{root.public.hex()}"',
        f'roster = "{secret(directory / "roster", signed)}"',
        f'identity = "{directory / "identity"}"',
        f'state_dir = "{state}"',
        f'[secrets]\nseal_key = "{secret(directory / "seal-key", secrets.token_bytes(32))}"',
    ]
    for name, fields in buses.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in fields.items())]
    path = directory / "core-1.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def bus(region, directory, account):
    scope = rig.scope("core", account, "core-1")
    path = directory / f"{account}.creds"
    credentials.write(path, region.realm.user(scope))
    return {
        "url": region.server.url,
        "credentials": str(path),
        "inbox": inbox_prefix(scope.role, "core-1"),
        "ca": str(region.ca.directory / "ca.pem"),
    }


async def provision(region):
    places = {
        account: await region.join(rig.scope("provisioner", account))
        for account in ("region", "vault")
    }
    for config in _wanted("eu", 1):
        one = places["vault" if config.name == KEYS else "region"]
        size = {"max_bytes": 1 << 20} if config.name == subjects.AUDIT_STREAM else {}
        await one.client.jetstream().add_stream(config.evolve(**size))


async def test_a_broker_with_tls_and_rights_passes_every_check(tmp_path, desk):
    async with rig.running(tmp_path) as region:
        await provision(region)
        buses = {f"{account}_bus": bus(region, tmp_path, account) for account in BUSES}
        path = configuration(tmp_path, buses)
        code, findings, out = await desk.doctor("--config", str(path))
    assert {one["state"] for one in findings} == {"ok"}, findings
    assert code == Exit.OK
    assert not [one for one in findings if one["fix"]]
    for account in BUSES:
        name = f"core-1, {account}_bus, {region.server.url}"
        checks = {check for subject, check in states(findings) if subject == name}
        assert checks >= {"plain", "tls", "trust", "certificate", "version", "login", *TRIED}
    streams = {check for _, check in states(findings) if check.startswith("stream ")}
    assert {one.removeprefix("stream ") for one in streams} == {
        config.name for config in _wanted("eu", 1)
    }
    assert ("core-1, region_bus, streams", "clock") in states(findings)
    for name in (f"{account}.creds" for account in BUSES):
        assert credentials.read(tmp_path / name).key.seed() not in out


def plain_server(directory):
    directory.mkdir()
    settings = {
        "host": rig.HOST,
        "port": -1,
        "ports_file_dir": str(directory),
        "jetstream": {"store_dir": str(directory / "streams")},
        "authorization": {"users": [{"user": "core", "password": "very-secret"}]},
    }
    return rig.start(directory, "plain", json.dumps(settings))


async def test_a_broker_without_tls_and_rights_fails_with_a_fix_for_each(tmp_path, desk):
    server = plain_server(tmp_path / "plain")
    try:
        password = tmp_path / "password"
        password.write_text("very-secret")
        password.chmod(0o644)
        url = f"nats://{rig.HOST}:{server.port}"
        fields = {"url": url, "user": "core", "password_file": str(password)}
        fields |= {"inbox": "_INBOX.core.core-1"}
        path = configuration(tmp_path, {"region_bus": fields, "vault_bus": fields})
        code, findings, out = await desk.doctor("--config", str(path))
    finally:
        server.stop()
    assert code == Exit.CHECK_FAILED
    found = states(findings)
    failing = {check for (subject, check), state in found.items() if state == "fail"}
    streams = {f"stream {config.name}" for config in _wanted("eu", 1)}
    assert failing == {"password_file", "plain", "tls", *TRIED, *streams}
    assert all(one["fix"] for one in findings if one["state"] != "ok")
    assert found[f"core-1, region_bus, {url}", "login"] == "ok"
    assert "very-secret" not in out


async def test_a_login_that_is_refused_leaves_the_other_checks(tmp_path, desk):
    async with rig.running(tmp_path) as region:
        fields = bus(region, tmp_path, "region")
        stranger = rig.region_realm().user(rig.scope("core", "region", "core-1"))
        credentials.write(tmp_path / "region.creds", stranger)
        path = configuration(tmp_path, {"region_bus": fields})
        code, findings, _ = await desk.doctor("--config", str(path))
    assert code == Exit.CHECK_FAILED
    bad = [one for one in findings if one["state"] == "fail"]
    assert [(one["check"], one["text"]) for one in bad] == [
        ("login", "the broker rejects this user or its secret")
    ]
    left = {one["check"] for one in findings if one["state"] == "unknown"}
    assert left == {*TRIED, "streams"}


async def test_tls_that_does_not_come_first_and_another_authority_are_seen(tmp_path):
    ca, realm = rig.Ca(tmp_path / "ca"), rig.region_realm()
    directory = tmp_path / "eu"
    first = rig.start_region(directory, realm, ca)
    first.stop()
    text = (directory / "server.conf").read_text()
    old = '"handshake_first": true'
    server = rig.start(directory, "later", text.replace(old, '"handshake_first": false'))
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.create("other-ca", 1, rig.CLOCK).certificate)
    try:
        seen = await look(Place.of(server.url, ca.directory / "ca.pem"))
        strange = await look(Place.of(server.url, other))
    finally:
        server.stop()
    moment = seen.valid_until.replace(year=seen.valid_until.year - 1)
    found = {one.check: one.state for one in check_wire(seen, moment)}
    assert {check for check, state in found.items() if state != "ok"} == {"plain"}
    assert {one.check for one in check_wire(strange, moment) if one.state == "fail"} == {
        "plain",
        "trust",
    }


async def test_a_broker_that_is_down_is_one_failure(tmp_path, desk):
    password = secret(tmp_path / "password", b"x")
    fields = {"url": "tls://127.0.0.1:1", "user": "core", "password_file": str(password)}
    path = configuration(tmp_path, {"region_bus": fields | {"inbox": "_INBOX.core.core-1"}})
    code, findings, _ = await desk.doctor("--config", str(path))
    assert code == Exit.CHECK_FAILED
    assert [one["check"] for one in findings if one["state"] == "fail"] == ["reach"]


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"INFO {", b""])
async def test_a_server_that_is_no_broker_is_described_in_time(said):
    ended = []

    async def serve(reader, writer):
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            await reader.read(100)  # a handshake, or the end
        writer.transport.abort()
        ended.append(True)

    server = await asyncio.start_server(serve, rig.HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(20):
        seen = await look(Place(rig.HOST, port))
    server.close()
    await rig.until(lambda: len(ended) == (1 if said else 2))
    assert (seen.clear, seen.tls, dict(seen.info)) == (bool(said), "", {})
    assert {one.check for one in check_wire(seen, now()) if one.state == "fail"} >= {"tls"}


def now():
    return dt.datetime.fromtimestamp(rig.now_s(), dt.UTC)
