"""The images, built on an engine that reaches no network, and the system of ``compose.yaml`` in it.

``tests/engine run`` starts the engine and ``tests/containers/materials`` fetches what the images
are built from. All that is made here is removed here: testcontainers' reaper is an image that
would have to be pulled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import docker
import pytest
from docker.errors import BuildError
from testcontainers.compose import DockerCompose
from testcontainers.core.config import testcontainers_config
from testcontainers.core.image import DockerImage

from .lane import BASE, COMPOSE, PROJECT, ROOT, WHEELS, System, images_of

MATERIALS: Final = ROOT / ".cache" / "containers"
"""What ``tests/containers/materials`` made."""
BUILD_S: Final = 600
"""Seconds for one image: the first one builds every wheel."""
BUILD_ARGS: Final = {
    "PYTHON_IMAGE": f"{BASE}:bookworm",
    "WHEELS_IMAGE": WHEELS,
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "/wheelhouse",
}

WHEELS_IMAGE: Final = f"""
FROM {BASE}:bookworm
COPY *.whl /wheelhouse/
"""


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine of this run. Without one the lane fails: it skips nothing."""
    host = os.environ.get("DOCKER_HOST")
    assert host, "these tests need an engine of their own: make test-containers"
    testcontainers_config.ryuk_disabled = True
    client = docker.from_env(timeout=BUILD_S)
    yield client
    client.close()


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every image that ``compose.yaml`` names, from the base, the wheels and this source alone."""
    assert not engine.images.list(), "this engine is not one of this run alone"
    dockerfiles = tmp_path_factory.mktemp("dockerfiles")
    (dockerfiles / "wheels").write_text(WHEELS_IMAGE)
    built = [_image(MATERIALS / "wheelhouse", str(dockerfiles / "wheels"), WHEELS)]
    targets = {f"{name}:latest": target for name, target in images_of(COMPOSE).items()}
    for tag, target in targets.items():
        built.append(_image(ROOT, "deploy/Dockerfile", tag, target=target, buildargs=BUILD_ARGS))
    try:
        engine.api.import_image(src=str(MATERIALS / "base.tar"), repository=BASE, tag="bookworm")
        for image in built:
            _build(image)
        yield
    finally:
        for image in built:
            image.remove()  # closes its client alone: images that share layers go together
        engine.images.prune(filters={"dangling": False})
        assert not engine.images.list(all=True), "an image of this run is left"


def _image(path: Path, dockerfile: str, tag: str, **options: Any) -> DockerImage:
    return DockerImage(
        path=path,
        dockerfile_path=dockerfile,
        tag=tag,
        docker_client_kw={"timeout": BUILD_S},
        clean_up=False,
        network_mode="none",
        **options,
    )


def _build(image: DockerImage) -> None:
    try:
        image.build()
    except BuildError as error:
        log = "".join(str(line.get("stream", line)) for line in error.build_log)
        pytest.fail(f"{image.tag}: {error}\n{log[-4000:]}", pytrace=False)


@pytest.fixture(scope="session")
def docker_command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``docker`` that has ``compose``: Debian 12 has Compose 1.29 as a program of its own."""
    found = shutil.which("docker")
    assert found, "the client of Docker is missing: tests/engine install"
    asked = subprocess.run([found, "compose", "version"], capture_output=True, check=False)
    if asked.returncode == 0:
        return Path(found)
    older = shutil.which("docker-compose")
    assert older, "Compose is missing: tests/engine install"
    command = tmp_path_factory.mktemp("bin") / "docker"
    command.write_text(
        f'#!/bin/sh\nif [ "$1" = compose ]; then shift; exec {older} "$@"; fi\nexec {found} "$@"\n'
    )
    command.chmod(0o755)
    return command


@pytest.fixture(scope="session")
def system(engine: docker.DockerClient, images: None, docker_command: Path) -> Iterator[System]:
    """``compose.yaml`` as it is, up and serving; removed with its volumes and networks."""
    del images
    os.environ["COMPOSE_PROJECT_NAME"] = PROJECT
    compose = DockerCompose(
        context=ROOT,
        compose_file_name="compose.yaml",
        docker_command_path=str(docker_command),
        wait=False,  # Compose 1.29 has no --wait
    )
    made = System(engine, compose)
    try:
        made.up()
        yield made
    finally:
        made.down()
        del os.environ["COMPOSE_PROJECT_NAME"]
    assert not engine.containers.list(all=True), "a container of this run is left"
    assert not engine.volumes.list(), "a volume of this run is left"
    names = {network.name for network in engine.networks.list()}
    assert names <= {"bridge", "host", "none"}, "a network of this run is left"
