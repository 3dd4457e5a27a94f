"""The images hold what they should, and nothing came from a registry."""

from __future__ import annotations

import docker
import pytest

from .lane import BASE, COMPOSE, WHEELS, images_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_every_image_is_built_here_and_none_was_pulled(
    engine: docker.DockerClient, images: None
) -> None:
    expected = {f"{name}:latest" for name in images_of(COMPOSE)} | {f"{BASE}:bookworm", WHEELS}
    found = engine.images.list()
    assert {tag for image in found for tag in image.tags} == expected
    assert not [image.attrs["RepoDigests"] for image in found if image.attrs["RepoDigests"]]
