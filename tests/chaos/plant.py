"""The system under test as processes: end, pause and start them, and turn back their disks."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

from kcm_devsystem import processes, state, system, topology
from kcm_devsystem.configs import config_file, ready_file
from kcm_devsystem.instances import start_member
from kcm_devsystem.root_keys import RootKeys
from kcm_devsystem.state import Entry, Kind
from kcm_schemas.roster import Role

from tests.chaos.journal import Journal
from tests.chaos.links import Links

POLL_S = 0.02
WATCH_S = 0.5
"""Seconds after which a process that ended by itself is started again, as an init system would."""


class Plant:
    """All processes of one development system. Used from the main thread alone."""

    def __init__(self, options: system.Options, links: Links) -> None:
        self.options = options
        self.links = links
        self.root: Path = options.directory
        self.keys = RootKeys(self.root)
        self.ended_by_themselves: list[str] = []
        self._members = {member.name: member for member in options.members}
        self._entries: dict[str, Entry] = {}
        self._down: set[str] = set()
        self._ours: set[int] = set()
        """Every process that was ever started: each leads a session of its own."""

    def up(self) -> Path:
        """Start everything; returns the clients' context file."""
        started = system.up(self.options, lambda _: None)
        self._entries = {entry.process.name: entry for entry in started.entries}
        self._ours.update(entry.process.pid for entry in started.entries)
        return started.context

    def down(self) -> None:
        """End everything; what was paused goes on first, so that it can."""
        for name in self._entries:
            self.resume(name)
        system.down(self.root)

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def of_role(self, role: str) -> tuple[str, ...]:
        return tuple(name for name, entry in self._entries.items() if entry.role == role)

    def region_of(self, name: str) -> str:
        return self._entries[name].region

    def is_running(self, name: str) -> bool:
        return processes.is_running(self._entries[name].process)

    def pause(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    async def kill(self, name: str) -> None:
        """End a process as a power cut would; it stays down until it is started."""
        self._down.add(name)
        self._signal(name, signal.SIGKILL)
        await asyncio.to_thread(self._await_end, name)

    async def end(self, name: str) -> None:
        """End a process in an orderly way; it stays down until it is started."""
        self._down.add(name)
        self._signal(name, signal.SIGTERM)
        await asyncio.to_thread(self._await_end, name)

    def start(self, name: str) -> None:
        """Start a process again; does not wait."""
        self._down.discard(name)
        if self.is_running(name):
            return
        old = self._entries[name]
        if old.kind is Kind.BROKER:
            process = topology.spawn_broker(
                self.root, name, die_with_parent=self.options.die_with_parent
            )
            entry = Entry(process, old.kind, old.role, old.region, old.instance, old.address)
        else:
            entry = start_member(
                self.root, self._members[name], die_with_parent=self.options.die_with_parent
            )
        self._entries[name] = entry
        self._ours.add(entry.process.pid)
        now = state.load(self.root) or state.State()
        state.save(self.root, now.with_entry(entry))

    def is_ready(self, name: str) -> bool:
        entry = self._entries[name]
        if not self.is_running(name):
            return False
        if entry.kind is Kind.BROKER:
            return topology.ports_file(self.root, entry.process).exists()
        return ready_file(self.root, self._members[name]).exists()

    async def keep_up(self) -> None:
        """Start again what ended and was not ended by us, for ever."""
        while True:
            for name in self.names:
                if name not in self._down and not self.is_running(name):
                    self.ended_by_themselves.append(name)
                    self.start(name)
            await asyncio.sleep(WATCH_S)

    @property
    def journal(self) -> Journal:
        """The Auditor's journal, from its beginning."""
        (auditor,) = (one for one in self._members.values() if one.role is Role.AUDITOR)
        return Journal(self.root / "journal", config_file(self.root, auditor))

    def copy_disk(self, server: str) -> None:
        """Keep a copy of a broker's streams. The broker has to be down."""
        shutil.rmtree(self.copy(server), ignore_errors=True)
        shutil.copytree(self.store(server), self.copy(server))

    def turn_back_disk(self, server: str) -> None:
        """Bring the copy back, as a restored snapshot would. The broker has to be down."""
        self.wipe_disk(server)
        shutil.copytree(self.copy(server), self.store(server))

    def wipe_disk(self, server: str) -> None:
        """Take away all that a broker stores. The broker has to be down."""
        shutil.rmtree(self.store(server))

    def store(self, server: str) -> Path:
        """Where a broker keeps its streams."""
        return self.root / "brokers" / server

    def copy(self, server: str) -> Path:
        """Where the last copy of that is."""
        return self.root / "copies" / server

    def nodes(self, region: str) -> list[str]:
        """The servers of a region's broker."""
        return [name for name in self.of_role("region") if self.region_of(name) == region]

    def flip_key(self, link: str, word: str) -> None:
        """Let the customer change the state of their key, at once and as a whole."""
        path = self.root / "l1" / link / "state"
        fresh = path.with_name("state.new")
        fresh.write_text(word + "\n")
        fresh.replace(path)

    def left_over(self) -> list[int]:
        """Processes of our sessions that still run: there must be none after ``down``."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[3]) in self._ours and fields[0] != b"Z":
                found.append(int(stat.parent.name))
        return found

    def _await_end(self, name: str) -> None:
        while self.is_running(name):
            time.sleep(POLL_S)

    def _signal(self, name: str, number: int) -> None:
        if self.is_running(name):
            os.kill(self._entries[name].process.pid, number)
