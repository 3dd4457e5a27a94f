"""What the tests do with the containers of ``compose.yaml``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import docker
import yaml
from docker.errors import NotFound
from docker.models.containers import Container
from testcontainers.compose import DockerCompose

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
BASE: Final = "kcm-lane-base"
"""The image that stands in for ``python:3.11-slim-bookworm``, made from Debian's packages."""
WHEELS: Final = "kcm-lane-wheels:locked"
"""The same with the lock's wheels."""
PROJECT: Final = "kcm-lane"
"""Compose's name for the system."""

READY_S: Final = 240
"""Seconds for every container to serve, on two cores."""
COMMAND_S: Final = 180
"""Seconds for one command of the operator."""
DEMO_S: Final = 240
"""Seconds for ``kcm demo``."""
POLL_S: Final = 0.5


def images_of(compose: dict[str, Any]) -> dict[str, str]:
    """Every image that the file can ask for, with the Dockerfile's stage."""
    found = {}
    for service in compose["services"].values():
        for core in ("core", "core-softhsm"):
            name, target = (
                text.replace("${KCM_CORE:-core}", core)
                for text in (service["image"], service["build"]["target"])
            )
            found[name] = target
    return found


def error_of(done: subprocess.CompletedProcess[bytes]) -> str:
    """The code of the error that a command ended with, among notes and lines of Compose."""
    lines = [json.loads(each) for each in done.stderr.splitlines() if each.startswith(b"{")]
    (line,) = [each for each in lines if "error" in each]
    return str(line["error"])


def until(
    condition: Callable[[], Any], what: Callable[[], str] | str, within_s: float = READY_S
) -> Any:
    """Wait for a condition and return what it says. AssertionError names what was waited for."""
    end = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() >= end:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {within_s:.0f} s: {text}")
        time.sleep(POLL_S)
    return answer


class System:
    """The system of ``compose.yaml`` on an engine."""

    def __init__(self, engine: docker.DockerClient, compose: DockerCompose) -> None:
        self.engine = engine
        self.compose = compose
        self.profiles: set[str] = set()

    def up(self, *profiles: str, core: str = "core") -> None:
        """Start what does not run and wait until all of it serves."""
        self.profiles |= set(profiles)
        os.environ["KCM_CORE"] = core
        os.environ["COMPOSE_PROFILES"] = ",".join(sorted(self.profiles))
        try:
            self.compose.start()
        except subprocess.CalledProcessError as error:
            raise AssertionError(error.stderr.decode(errors="replace")[-4000:]) from None
        for name in self.services():
            self.serves(name)

    def serves(self, service: str) -> None:
        """Wait until the service's own health check says that it serves."""
        until(lambda: self.healthy(service), lambda: f"{service} serves: {self.why(service)}")

    def down(self) -> None:
        """Remove everything that was started."""
        self.compose.stop()

    def services(self) -> list[str]:
        """The services that run on, in the profiles that are chosen."""
        return [
            name
            for name, service in COMPOSE["services"].items()
            if service["restart"] != "no" and set(service.get("profiles", [])) <= self.profiles
        ]

    def container(self, service: str) -> Container:
        """The service's container, running or not."""
        label = "com.docker.compose"
        labels = [f"{label}.project={PROJECT}", f"{label}.service={service}"]
        labels.append(f"{label}.oneoff=False")
        (found,) = self.engine.containers.list(all=True, filters={"label": labels})
        return found

    def healthy(self, service: str) -> bool:
        """Whether its own health check says that it serves."""
        state = self.container(service).attrs["State"]
        return bool(state["Running"]) and state["Health"]["Status"] == "healthy"

    def why(self, service: str) -> str:
        """How it is: the end of its log."""
        found = self.container(service)
        return f"{found.status}: {found.logs(tail=5).decode(errors='replace')}"

    def kcm(self, *arguments: str, given: bytes = b"", expect: int = 0) -> bytes:
        """Run the operator's command in a container of its own; return its standard output."""
        done = self.asked(*arguments, given=given)
        assert done.returncode == expect, done.stderr.decode(errors="replace")
        return done.stdout

    def asked(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run the operator's command in a container of its own."""
        command = [*self.compose.docker_compose_command(), "run", "--rm", "-T", "cli"]
        return subprocess.run(
            [*command, *arguments],
            cwd=ROOT,
            input=given,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )

    def answer(self, *arguments: str) -> Any:
        """What the command says, as JSON."""
        return json.loads(self.kcm(*arguments, "-o", "json"))

    def refusal(self, *arguments: str, given: bytes = b"", code: int) -> str:
        """The code of the error with which the command ends."""
        done = self.asked(*arguments, given=given)
        assert done.returncode == code, done.stderr.decode(errors="replace")
        return error_of(done)

    def crash(self, service: str) -> None:
        """Kill the service's process as the kernel would, so that the engine did not ask for it."""
        found = self.container(service)
        os.kill(_outside(found), signal.SIGKILL)


def _outside(container: Container) -> int:
    """The process id, on this machine, of a container's first process.

    The engine runs in a process namespace of its own, so the id that it knows is another one.
    """
    inside = str(container.attrs["State"]["Pid"])
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ids = re.findall(r"\d+", text[text.index("NSpid:") :].partition("\n")[0])
        if ids[1:] != [inside, "1"]:
            continue
        if container.id in (status.parent / "cgroup").read_text():
            return int(status.parent.name)
    raise NotFound(f"{container.name} has no process")
