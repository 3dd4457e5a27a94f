"""On a machine that lacks what the tests need, ``make test`` installs it or says what to run."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools"


@dataclass(frozen=True)
class Machine:
    """A directory that is the whole machine for the script: its programs, its module."""

    root: Path

    def program(self, name: str, script: str, *, where: str = "bin") -> None:
        path = self.root / where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def has(self, *packages: str) -> None:
        if "softhsm2" in packages:
            self.program("softhsm2-util", "exit 0")
            module = self.root / "usr" / "lib" / "softhsm" / "libsofthsm2.so"
            module.parent.mkdir(parents=True)
            module.touch()
        if "nftables" in packages:
            self.program("nft", "exit 0", where="usr/sbin")
        if "iproute2" in packages:
            self.program("ip", "exit 0", where="usr/sbin")
        if "gcc" in packages:
            self.program("cc", "exit 0")
            headers = self.root / "usr" / "include"
            headers.mkdir(parents=True)
            (headers / "stdio.h").touch()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(SCRIPT), *arguments],
            env={"PATH": str(self.root / "bin"), "KCM_SYSROOT": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    made.program("id", "echo 0")
    return made


def _apt(machine: Machine, *, installs: bool, code: int = 0) -> None:
    places = [
        machine.root / "bin" / "softhsm2-util",
        machine.root / "usr" / "lib" / "softhsm" / "libsofthsm2.so",
        machine.root / "usr" / "sbin" / "nft",
        machine.root / "usr" / "sbin" / "ip",
        machine.root / "bin" / "cc",
        machine.root / "usr" / "include" / "stdio.h",
    ]
    makes = []
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        makes.append(f": > {path}; /bin/chmod 755 {path}")
    machine.program(
        "apt-get",
        f'echo "apt-get $*" >> {machine.root}/calls\n'
        + (f'[ "$1" = install ] && {{ {"; ".join(makes)}; }}\n' if installs else "")
        + f"exit {code}",
    )


def test_nothing_is_said_or_run_where_everything_is_there(machine):
    machine.has("softhsm2", "nftables", "iproute2", "gcc")
    _apt(machine, installs=False)
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr, machine.calls) == (0, "", "", [])


def test_root_of_a_debian_installs_exactly_what_is_missing(machine):
    machine.has("nftables", "iproute2", "gcc")
    _apt(machine, installs=True)
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert machine.calls == ["apt-get install -y -qq --no-install-recommends softhsm2"]
    assert "installing softhsm2" in done.stderr


def test_others_are_told_at_once_what_to_run(machine):
    machine.program("id", "echo 1000")
    machine.program("sudo", "exit 1")
    _apt(machine, installs=True)
    done = machine.run()
    assert (done.returncode, machine.calls) == (1, [])
    assert "make tools" in done.stderr
    assert "apt-get install softhsm2 nftables iproute2" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("install",)])
def test_without_sudo_others_are_told_what_root_has_to_run(machine, arguments):
    machine.program("id", "echo 1000")
    _apt(machine, installs=True)
    done = machine.run(*arguments)
    assert (done.returncode, machine.calls) == (1, [])
    assert done.stderr == (
        "tests/tools: missing: softhsm2 nftables iproute2 gcc libc6-dev. As root, run:"
        " apt-get update && apt-get install softhsm2 nftables iproute2 gcc libc6-dev\n"
    )


def test_others_install_through_sudo_when_they_ask_for_it(machine):
    machine.program("id", "echo 1000")
    machine.program("sudo", f'echo sudo >> {machine.root}/calls; exec "$@"')
    _apt(machine, installs=True)
    done = machine.run("install")
    assert done.returncode == 0, done.stderr
    assert machine.calls[0] == "sudo"
    assert machine.calls[1].endswith("softhsm2 nftables iproute2 gcc libc6-dev")


def test_a_failed_installation_is_a_failure(machine):
    _apt(machine, installs=False, code=100)
    done = machine.run()
    assert done.returncode == 1
    assert "apt-get update && apt-get install softhsm2 nftables iproute2" in done.stderr
    assert [call.split()[1] for call in machine.calls] == ["install", "update"]


def test_a_package_without_what_is_needed_is_a_failure(machine):
    _apt(machine, installs=False)
    done = machine.run()
    assert done.returncode == 1
    assert "still missing: softhsm2 nftables iproute2" in done.stderr


def test_a_machine_without_apt_is_told_the_names(machine):
    done = machine.run()
    assert done.returncode == 1
    assert "softhsm2 nftables iproute2" in done.stderr
    assert "libsofthsm2.so" in done.stderr
