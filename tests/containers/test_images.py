"""The images hold what they should, and nothing came from a registry."""

from __future__ import annotations

import json

import docker
import pytest
from testcontainers.core.container import DockerContainer

from .lane import BASE, COMPOSE, DEMO_S, WHEELS, images_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_every_image_is_built_here_and_none_was_pulled(
    engine: docker.DockerClient, images: None
) -> None:
    expected = {f"{name}:latest" for name in images_of(COMPOSE)}
    expected |= {f"{BASE}:bookworm", WHEELS}
    found = engine.images.list()
    assert {tag for image in found for tag in image.tags} == expected
    assert not [image.attrs["RepoDigests"] for image in found if image.attrs["RepoDigests"]]


def test_the_demo_runs_in_a_container_without_a_network(images: None) -> None:
    del images
    options = {
        "network_mode": "none",
        "read_only": True,
        "user": "10001:10001",
        "working_dir": "/tmp",
        "cap_drop": ["ALL"],
        "init": True,
    }
    command = ["demo", "--l1", "softkey", "-o", "json"]
    container = DockerContainer("kcm-cli:latest").with_command(command).with_kwargs(**options)
    container.with_env("HOME", "/tmp")
    container.tmpfs["/tmp"] = "mode=0700,uid=10001,gid=10001,size=512m"
    with container:
        code = container.get_wrapped_container().wait(timeout=DEMO_S)["StatusCode"]
        out, errors = container.get_logs()
    assert code == 0, errors.decode(errors="replace")
    result = json.loads(out)
    assert result["ok"] is True
    assert result["kill"]["complete"] is True
    assert result["kill"]["instances"] == 6
