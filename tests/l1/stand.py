"""A stand: one provider's key for a test to break, whatever the provider is.

Servers of clouds run as processes of their own, ``python -m tests.l1.servers.NAME DIRECTORY``, and
are handled through files of that directory, so that a person can do it too:

    uri           the key's URI; written last, when the server serves
    environment   what an unsealer needs to reach it, as JSON
    state         the key's state, a word of ``L1State``: ``echo disabled > state``
    settles       seconds that a change of ``state`` takes to be in force (0 when there is no file)
    trouble       what goes wrong with every request, a word of ``Trouble``; nothing when empty
    calls         a line for every request that arrived: the operation's name

Every request looks at ``state`` and ``trouble`` anew. A stand that stands for a real account has no
files: it can only be used.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from kcm_core.providers.state import L1State

START_S: Final = 60.0
"""Seconds that a server gets to serve: importing what it is made of takes some."""


class Trouble(StrEnum):
    """What can go wrong between a provider and its key."""

    NONE = ""
    HANG = "hang"
    """Connections are taken and never answered."""
    DELAY = "delay"
    """Every answer takes half a second more."""
    RESET = "reset"
    """The connection is reset when a request has come."""
    UNAVAILABLE = "unavailable"
    """The service says that it is not available (503, UNAVAILABLE)."""
    THROTTLE = "throttle"
    """The service says that there were too many requests."""
    REDIRECT = "redirect"
    """The caller is sent elsewhere with what it asks."""
    ENDLESS = "endless"
    """The answer does not end."""
    SKEW = "skew"
    """The cloud's clock is ten minutes ahead, and it refuses what the caller signed."""
    CORRUPT = "corrupt"
    """One byte of what was wrapped or unwrapped is another one, checksums included if there are."""


@dataclass(frozen=True, slots=True)
class Stand:
    """A key, and the handles on it."""

    name: str
    uri: str
    environment: Mapping[str, str]
    directory: Path | None = None
    states: frozenset[L1State] = field(default_factory=frozenset)
    """The states that ``put`` can bring about here."""

    def put(self, state: L1State) -> None:
        """Change the key's state, as its owner would."""
        assert state in self.states
        self._write("state", state.value)

    def settles(self, seconds: float) -> None:
        """Let changes of the state take so long to be in force."""
        self._write("settles", str(seconds))

    def trouble(self, kind: Trouble) -> None:
        """Let something go wrong, or right again."""
        self._write("trouble", kind.value)

    @property
    def calls(self) -> list[str]:
        """The requests that arrived so far."""
        path = self._directory / "calls"
        return path.read_text().split() if path.exists() else []

    @property
    def _directory(self) -> Path:
        assert self.directory is not None, "a real account cannot be broken"
        return self.directory

    def _write(self, name: str, text: str) -> None:
        fresh = self._directory / f"{name}.new"
        fresh.write_text(f"{text}\n")
        fresh.replace(self._directory / name)


@contextmanager
def admission(name: str, directory: Path) -> Iterator[Stand]:
    """Run a cloud's server until the end of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    log = (directory / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.l1.servers.{name}", str(directory)],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        ends = time.monotonic() + START_S
        while not (directory / "uri").exists():
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < ends, f"the server {name} does not start"
            time.sleep(0.02)
        yield Stand(
            name=name,
            uri=(directory / "uri").read_text().strip(),
            environment=json.loads((directory / "environment").read_text()),
            directory=directory,
            states=frozenset(L1State) - {L1State.INVALID},
        )
    finally:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


class Files:
    """A server's side of the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory
        self._is = L1State.ENABLED

    @property
    def state(self) -> L1State:
        """The state that is in force now."""
        wanted, settles = (
            L1State(self._read("state") or "enabled"),
            float(self._read("settles") or 0),
        )
        if wanted is not self._is:
            try:
                changed = (self._directory / "state").stat().st_mtime
            except FileNotFoundError:
                changed = 0.0
            if time.time() - changed >= settles:
                self._is = wanted
        return self._is

    @property
    def trouble(self) -> Trouble:
        """What goes wrong now."""
        return Trouble(self._read("trouble"))

    def called(self, operation: str) -> None:
        """Count a request."""
        with (self._directory / "calls").open("a") as file:
            file.write(f"{operation}\n")

    def ready(self, uri: str, environment: Mapping[str, str]) -> None:
        """Say that the server serves."""
        (self._directory / "environment").write_text(json.dumps(dict(environment)))
        fresh = self._directory / "uri.new"
        fresh.write_text(f"{uri}\n")
        fresh.replace(self._directory / "uri")

    def _read(self, name: str) -> str:
        try:
            return (self._directory / name).read_text().strip()
        except FileNotFoundError:
            return ""
