"""The engine of the container tests: it is installed, or the reason is said; nothing is skipped."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.conftest import CONTAINERS, pytest_ignore_collect

SCRIPT = Path(__file__).parents[1] / "engine"
PROGRAMS = ("dockerd", "iptables", "docker-compose", "mmdebstrap", "ip")
KEYRING = Path("usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = "docker.io iptables docker-compose mmdebstrap debian-archive-keyring iproute2"
NEEDED = ("cat", "find", "mktemp", "rm", "sleep", "tail")


@dataclass(frozen=True)
class Machine:
    """A directory that is the whole machine for the script."""

    root: Path

    def program(self, name: str, script: str = "exit 0") -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def has(self, *names: str) -> None:
        for name in names:
            self.program(name)
        (self.root / KEYRING).parent.mkdir(parents=True, exist_ok=True)
        (self.root / KEYRING).touch()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        (self.root / "tmp").mkdir(exist_ok=True)
        return subprocess.run(
            ["/bin/sh", str(SCRIPT), *arguments],
            env={
                "PATH": str(self.root / "bin"),
                "KCM_SYSROOT": str(self.root),
                "KCM_ENGINE_SECONDS": "3",
                "TMPDIR": str(self.root / "tmp"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def calls(self) -> list[str]:
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.program("id", "echo 0")
    made.program("docker", "exit 1")
    for name in NEEDED:
        found = shutil.which(name)
        assert found
        (tmp_path / "bin" / name).symlink_to(found)
    return made


def _apt(machine: Machine, *, installs: bool, code: int = 0) -> None:
    makes = "".join(
        f"echo '#!/bin/sh' > {machine.root}/bin/{name}; /bin/chmod 755 {machine.root}/bin/{name}; "
        for name in PROGRAMS
    )
    keyring = machine.root / KEYRING
    makes += f"/bin/mkdir -p {keyring.parent}; : > {keyring}; "
    machine.program(
        "apt-get",
        f'echo "apt-get $*" >> {machine.root}/calls\n'
        + (f'[ "$1" = install ] && {{ {makes} }}\n' if installs else "")
        + f"exit {code}",
    )


def _engine(machine: Machine, *, comes_up: bool) -> None:
    """A daemon that says that it runs, or ends at once."""
    machine.has(*PROGRAMS)
    machine.program("docker", f"[ $1 = version ] && exit {0 if comes_up else 1}; exit 1")
    stays = "exec sleep 60" if comes_up else "echo 'no permission to mount' ; exit 1"
    # What `unshare --fork` does: a child, which the script ends.
    machine.program("setpriv", f"({stays}) & child=$!; wait $child")


def test_nothing_is_said_or_run_where_everything_is_there(machine: Machine) -> None:
    machine.has(*PROGRAMS)
    _apt(machine, installs=False)
    done = machine.run("install")
    assert (done.returncode, done.stdout, done.stderr, machine.calls) == (0, "", "", [])


def test_compose_2_is_taken_where_it_is(machine: Machine) -> None:
    machine.has("dockerd", "iptables", "mmdebstrap", "ip")
    machine.program("docker", '[ "$*" = "compose version" ]')
    assert machine.run("install").returncode == 0


def test_root_of_a_debian_installs_exactly_what_is_missing(machine: Machine) -> None:
    machine.has("iptables", "ip", "mmdebstrap")
    _apt(machine, installs=True)
    done = machine.run("install")
    assert done.returncode == 0, done.stderr
    assert machine.calls == [
        "apt-get install -y -qq --no-install-recommends docker.io docker-compose"
    ]


def test_others_are_told_that_it_needs_root(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    _apt(machine, installs=True)
    done = machine.run("install")
    assert (done.returncode, machine.calls) == (1, [])
    assert "sudo make test-containers" in done.stderr


def test_a_failed_installation_is_a_failure(machine: Machine) -> None:
    _apt(machine, installs=False, code=100)
    done = machine.run("install")
    assert done.returncode == 1
    assert f"apt-get update && apt-get install {PACKAGES}" in done.stderr


def test_a_package_without_what_is_needed_is_a_failure(machine: Machine) -> None:
    _apt(machine, installs=False)
    done = machine.run("install")
    assert done.returncode == 1
    assert f"still missing: {PACKAGES}" in done.stderr


def test_a_machine_without_apt_is_told_the_names(machine: Machine) -> None:
    done = machine.run("install")
    assert done.returncode == 1
    assert PACKAGES in done.stderr


def test_the_command_runs_with_the_engine_and_its_exit_code_counts(machine: Machine) -> None:
    _engine(machine, comes_up=True)
    done = machine.run("run", "/bin/sh", "-c", "echo $DOCKER_HOST; exit 7")
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith(f"unix://{machine.root}/tmp/kcm-engine.")
    assert not list((machine.root / "tmp").iterdir()), "something of the engine is left"


def test_an_engine_that_does_not_start_is_a_failure_with_its_reason(machine: Machine) -> None:
    _engine(machine, comes_up=False)
    done = machine.run("run", "/bin/sh", "-c", "echo never")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no permission to mount" in done.stderr
    assert not list((machine.root / "tmp").iterdir())


def test_no_command_runs_where_a_program_is_missing(machine: Machine) -> None:
    done = machine.run("run", "/bin/sh", "-c", "echo never")
    assert (done.returncode, done.stdout) == (1, "")
    assert "tests/engine install" in done.stderr


@pytest.mark.parametrize(
    ("named", "ignored"),
    [
        (["tests"], True),
        (["tests/unit"], True),
        ([str(CONTAINERS)], None),
        ([f"{CONTAINERS}/test_images.py::test_x"], None),
    ],
)
def test_the_container_tests_run_only_where_they_are_named(
    named: list[str], ignored: bool | None
) -> None:
    config = cast("pytest.Config", SimpleNamespace(args=named))
    assert pytest_ignore_collect(CONTAINERS, config) is ignored
    assert pytest_ignore_collect(CONTAINERS.parent / "unit", config) is None
