"""Which server is taken, and which is refused."""

from pathlib import Path

import pytest
from kcm_devsystem.errors import DevError
from kcm_devsystem.server_binary import nats_server_binary
from kcm_runtime.nats.server_version import LEAST


def server(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_installed_server_is_found():
    assert nats_server_binary().name == "nats-server"


@pytest.mark.parametrize("version", ["2.9.10", "2.12.6"])
def test_a_server_that_is_too_old_is_refused_with_both_versions(tmp_path, version):
    old = server(tmp_path / "nats-server", f"echo 'nats-server: v{version}'")
    with pytest.raises(DevError) as caught:
        nats_server_binary(old)
    assert version in str(caught.value)
    assert LEAST in str(caught.value)


def test_the_oldest_that_is_good_enough_is_taken(tmp_path):
    least = server(tmp_path / "nats-server", "echo 'nats-server: v2.12.7'")
    assert nats_server_binary(least) == least


@pytest.mark.parametrize("script", ["exit 3", "echo 'nats-server: vX'", "echo 2.15.1"])
def test_what_is_no_nats_server_is_refused(tmp_path, script):
    with pytest.raises(DevError):
        nats_server_binary(server(tmp_path / "other", script))


def test_what_cannot_be_executed_is_refused(tmp_path):
    plain = tmp_path / "nats-server"
    plain.write_text("nats-server: v2.15.1")
    for path in (plain, tmp_path / "absent"):
        with pytest.raises(DevError):
            nats_server_binary(path)
