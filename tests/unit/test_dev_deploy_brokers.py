"""The broker configuration of deploy/: the server accepts it."""

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kcm_broker import role_users
from kcm_devsystem import containers
from kcm_devsystem.server_binary import nats_server_binary

ROOT = Path(__file__).parents[2]


DEPLOY = ROOT / "deploy"


BCRYPT = "$2a$11$W2zko751KUvVy59mUTWmpOdWjpEm5qhcCZRd05GjI/sSOT.xtiHyG"


def certificate(directory: Path) -> None:
    """Write a self-signed certificate for the server to load."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = cert.public_bytes(serialization.Encoding.PEM)
    (directory / "server.pem").write_bytes(pem)
    (directory / "ca.pem").write_bytes(pem)
    (directory / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def checked(directory: Path, name: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(nats_server_binary()), "-t", "-c", str(directory / name)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def production(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The production configurations as an operator would have them, and the environment."""
    certificate(tmp_path)
    env = {
        "KCM_SERVER_NAME": "n1",
        "KCM_REGION": "eu-de",
        "KCM_ROUTES": '["tls://n2.example:6222", "tls://n3.example:6222"]',
        "KCM_BACKBONE": '["tls://eu-de:secret@b1.example:7422"]',
    }
    texts = {
        name: (DEPLOY / "nats" / name).read_text()
        for name in ("backbone.conf", "region.conf", "regions.conf.example")
    }
    texts["users.conf"] = role_users.users_text("eu-de")
    for name, text in texts.items():
        here = text.replace("/etc/nats", str(tmp_path))
        (tmp_path / name.removesuffix(".example")).write_text(here)
        env |= dict.fromkeys(re.findall(r"\$(KCM_\w+_HASH)", text), BCRYPT)
    return tmp_path, env


@pytest.mark.parametrize("name", ["backbone.conf", "region.conf"])
def test_the_server_takes_the_production_configuration(production, name):
    directory, env = production
    done = checked(directory, name, env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "missing"),
    [("backbone.conf", "KCM_LINK_EU_DE_HASH"), ("region.conf", "KCM_CORE_HASH")],
)
def test_the_server_does_not_start_without_a_password(production, name, missing):
    directory, env = production
    done = checked(directory, name, {key: value for key, value in env.items() if key != missing})
    assert done.returncode != 0
    assert missing in done.stdout + done.stderr


def test_the_production_backbone_shares_what_the_tested_one_shares(tmp_path):
    """Two texts, one rule: the example has the exports and imports that the renderer writes."""
    containers.write_brokers(tmp_path)
    rendered = yaml.safe_load((tmp_path / "backbone" / "nats.conf").read_text())
    text = (DEPLOY / "nats" / "regions.conf.example").read_text()
    for region, account in rendered["accounts"].items():
        block = text[text.index(f"\n  {region}: {{") :].split("\n  }\n")[0]
        shared = re.findall(r"(stream|service): \"([^\"]+)\"", block)
        taken = re.findall(r"(stream|service): \{account: (\S+), subject: \"([^\"]+)\"\}", block)
        exported = [("stream", e["stream"]) for e in account["exports"] if "stream" in e]
        exported += [("service", e["service"]) for e in account["exports"] if "service" in e]
        assert shared == exported
        named = re.findall(r"service: \"[^\"]+\", accounts: \[(\S+)\]", block)
        assert [named] == [e["accounts"] for e in account["exports"] if "service" in e]
        assert taken == [
            (kind, at["account"], at["subject"])
            for entry in account["imports"]
            for kind, at in entry.items()
        ]
