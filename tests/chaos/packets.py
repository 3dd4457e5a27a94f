"""Packets lost between hosts: the whole run in a network namespace of its own, whose loopback drops
what goes to and from the ports of cut links.

That is what a cable that was pulled looks like to a kernel: nothing is reset, nothing is refused,
what was sent is sent again and again, and some of it arrives after the healing. It takes root, or a
kernel that lets users have namespaces, and ``nft``; where that is not to be had a proxy swallows
the bytes instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

INSIDE: Final = "KCM_CHAOS_NAMESPACE"
"""Set for the process that runs inside the namespace."""

_TABLE: Final = """
table inet chaos {
  set cut { type inet_service; }
  chain arriving {
    type filter hook input priority 0;
    tcp dport @cut drop
    tcp sport @cut drop
  }
}
"""

_TOOLS: Final = ("unshare", "ip", "nft")


def enter() -> None:
    """Start this process anew in a network namespace of its own, where that is possible.

    Returns when it is not, or when this is the process inside.
    """
    if INSIDE in os.environ or not possible():
        return
    unshare = shutil.which("unshare")
    assert unshare is not None
    command = [*unsharing(unshare), sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
    os.execve(unshare, command, {**os.environ, INSIDE: "1"})


class Packets:
    """Drops packets by port, in the namespace that this process is in."""

    def __init__(self) -> None:
        _run("ip", "link", "set", "lo", "up")
        _run("nft", "-f", "-", said=_TABLE)

    @classmethod
    def inside(cls) -> Packets | None:
        """The namespace's rules; ``None`` outside of one, where others would be hit."""
        return cls() if INSIDE in os.environ else None

    def drop(self, ports: Iterable[int]) -> None:
        """Lose everything that goes to or comes from these ports."""
        _run("nft", "add", "element", "inet", "chaos", "cut", _set_of(ports))

    def let_through(self, ports: Iterable[int]) -> None:
        """Lose nothing more of these, which have to be among those that are dropped."""
        _run("nft", "delete", "element", "inet", "chaos", "cut", _set_of(ports))


def possible() -> bool:
    """Whether this machine has the tools, and lets this user make a network namespace."""
    found = [shutil.which(tool) for tool in _TOOLS]
    if None in found:
        return False
    assert found[0] is not None
    tried = [*unsharing(found[0]), "nft", "list", "tables"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


def unsharing(unshare: str) -> list[str]:
    """The command that starts another one in a network namespace; ``unshare`` is the tool."""
    mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [unshare, *mapped, "--net", "--"]


def _set_of(ports: Iterable[int]) -> str:
    return "{ " + ", ".join(map(str, sorted(ports))) + " }"


def _run(*command: str, said: str = "") -> None:
    subprocess.run(command, input=said, text=True, check=True, capture_output=True)
