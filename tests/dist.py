"""Build every wheel, and check that each distribution works without the checkout.

    python -m tests.dist [--out DIR]

Build the wheels from the checkout (hatchling, no build isolation), write them and `SHA256SUMS` to
DIR (`dist/`), and compare each wheel with its source tree. Then install the distributions into
empty virtual environments in a temporary directory, once for each way to use this project, and run
them there. Third-party wheels come from the index that pip is configured with, at the versions of
`requirements.lock`; the installations themselves use no index, so that no package of an index can
replace one of ours.

Exit code 0: every check passed. 1: one or more failed; standard error has a line for each.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = ROOT / "requirements.lock"
JOBS: Final = 2
"""Wheels that are built at once, and environments that are checked at once."""

EXTRAS: Final = {"boto3", "botocore", "google", "grpc", "google_crc32c", "azure", "pkcs11"}
"""Top-level modules of the optional dependencies of kcm-core."""
OPTIONAL: Final = ("kcm_core.providers.", "kcm_core.root_keys.hints.")
"""Prefixes of modules that may lack them: they are loaded only for a root key of that kind."""


@dataclass(frozen=True)
class Command:
    """A command line, the exit code it must have, and a text that its output must contain."""

    argv: tuple[str, ...]
    text: str
    code: int = 0


@dataclass(frozen=True)
class Environment:
    """What is installed, which of our packages that brings, and what must run.

    `packages` is exact: a package that is missing and a package too many are both failures.
    """

    name: str
    installs: tuple[str, ...]
    packages: frozenset[str]
    commands: tuple[Command, ...]


BASE: Final = frozenset({"kcm_schemas", "kcm_trust", "kcm_runtime"})
SESSIONS: Final = BASE | {"kcm_sealing", "kcm_sessions"}
"""The packages of components that open sessions."""

KEYS: Final = SESSIONS | {"kcm_keymem", "kcm_killswitch"}
"""The packages of components that hold keys of tenants, which the SDK and the Auditor must not."""

PUBLIC_NAMES: Final = (
    "import kcm; print(len([getattr(kcm, name) for name in kcm.__all__]), 'names')"
)
SDK: Final = (
    Command(("python", "-c", PUBLIC_NAMES), "names"),
    Command(("kcm", "--help"), "Usage: kcm"),
)

ENVIRONMENTS: Final = (
    Environment(
        "the SDK alone",
        ("kcm",),
        SESSIONS | {"kcm", "kcm_broker"},
        (*SDK, Command(("kcm", "dev"), "kcm-devsystem, which is not installed", code=2)),
    ),
    Environment(
        "the Core alone",
        ("kcm-core",),
        KEYS | {"kcm_core"},
        (Command(("python", "-m", "kcm_core", "--help"), "--config"),),
    ),
    Environment(
        "the Gateway alone",
        ("kcm-gateway",),
        KEYS | {"kcm_gateway"},
        (
            Command(("python", "-m", "kcm_gateway", "--help"), "--config"),
            Command(("python", "-c", "import kcm_gateway.embedded; print('embedded')"), "embedded"),
        ),
    ),
    Environment(
        "the Auditor alone",
        ("kcm-auditor",),
        BASE | {"kcm_auditor"},
        (Command(("python", "-m", "kcm_auditor", "--help"), "--verify"),),
    ),
    Environment(
        "a broker's identities alone",
        ("kcm-broker",),
        BASE | {"kcm_broker"},
        (Command(("python", "-c", "import kcm_broker.realm; print('realms')"), "realms"),),
    ),
    Environment(
        "an operator's tools",
        ("kcm-deployment",),
        SESSIONS | {"kcm", "kcm_keymem", "kcm_broker", "kcm_deployment"},
        (
            *SDK,
            Command(("kcm", "init", "--example"), "[backbone]"),
            Command(("kcm", "broker", "--help"), "revoke"),
            Command(("kcm", "doctor", "--help"), "Usage: kcm doctor"),
        ),
    ),
    Environment(
        "the development system",
        ("kcm-devsystem",),
        KEYS
        | {"kcm", "kcm_broker", "kcm_core", "kcm_gateway", "kcm_auditor"}
        | {"kcm_deployment", "kcm_devsystem"},
        (
            *SDK,
            Command(("kcm", "dev", "--help"), "Start a system"),
            Command(("kcm", "demo", "--help"), "Usage: kcm demo"),
        ),
    ),
)

PROBE: Final = """
import importlib, pkgutil, sys
finders = list(sys.meta_path)
for package in sys.argv[1:]:
    top = importlib.import_module(package)
    print("home", package, top.__file__)
    for found in pkgutil.walk_packages(top.__path__, package + ".", onerror=lambda name: None):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            print("lacks", found.name, error.name)
        sys.meta_path[:] = finders  # the Core's import guard is not the subject here
"""
"""A program that imports every module of the packages it is given, and reports what they lack."""


def main() -> int:
    """Build, install, run; print what failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.dist")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR")
    out: Path = parser.parse_args().out.resolve()
    with ThreadPoolExecutor(JOBS) as pool, tempfile.TemporaryDirectory(prefix="kcm-dist-") as area:
        members = sorted(find_members(ROOT))
        wheels = build_all(members, out, pool)
        problems = [
            problem
            for member, wheel in zip(members, wheels, strict=True)
            for problem in compare(member, wheel)
        ]
        write_sums(out, wheels)
        print(f"{len(wheels)} wheels in {out}", flush=True)
        others = download(Path(area), out)
        checks = pool.map(
            lambda one: check_environment(one, Path(area), (out, others)), ENVIRONMENTS
        )
        for environment, found in zip(ENVIRONMENTS, checks, strict=True):
            print(f"{environment.name}: {'FAILED' if found else 'passed'}", flush=True)
            problems += [f"{environment.name}: {problem}" for problem in found]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def find_members(root: Path) -> Iterator[Path]:
    """Yield the directory of every distribution in the checkout."""
    for path in (*root.glob("*/pyproject.toml"), *root.glob("*/*/pyproject.toml")):
        if (path.parent / "src").is_dir():
            yield path.parent


def build_all(members: Iterable[Path], out: Path, pool: ThreadPoolExecutor) -> list[Path]:
    """Build the wheel of each member into `out`, in this order; raises where a build fails."""
    out.mkdir(parents=True, exist_ok=True)
    for stale in (*out.glob("kcm*.whl"), *out.glob("SHA256SUMS")):
        stale.unlink()
    return list(pool.map(lambda member: build(member, out), members))


def build(member: Path, out: Path) -> Path:
    """Build one wheel without build isolation, and return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=member, check=True, capture_output=True, text=True)
    name = tomllib.loads((member / "pyproject.toml").read_text())["project"]["name"]
    (wheel,) = out.glob(f"{name.replace('-', '_')}-*.whl")
    return wheel


def compare(member: Path, wheel: Path) -> list[str]:
    """Say what the wheel lacks of the source tree, and what it has beside it.

    A wheel has every file of `src/` but bytecode, its metadata, and the licence.
    """
    source = member / "src"
    expected = {
        str(path.relative_to(source))
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in packed if name.partition("/")[0].endswith(".dist-info")}
    problems = [f"{wheel.name} lacks {name}" for name in sorted(expected - packed)]
    problems += [f"{wheel.name} has also {name}" for name in sorted(packed - metadata - expected)]
    for name in ("LICENSE", "NOTICE"):
        if not any(entry.endswith(f"/licenses/{name}") for entry in metadata):
            problems.append(f"{wheel.name} lacks {name}")
    return problems


def write_sums(out: Path, wheels: Iterable[Path]) -> None:
    """Write `SHA256SUMS`, in the format of `sha256sum --check`."""
    sums = [f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}" for wheel in wheels]
    (out / "SHA256SUMS").write_text("\n".join(sums) + "\n")


def pins(lock: str) -> list[str]:
    """Return the requirements of a lock as constraints: versions and markers.

    Hashes are left out, because pip then refuses every local wheel. So are extras, which a
    constraint cannot have.
    """
    lines = [line.rstrip(" \\") for line in lock.splitlines() if re.match(r"\w", line)]
    return [re.sub(r"\[[^]]*\]", "", line, count=1) for line in lines]


def download(area: Path, ours: Path) -> Path:
    """Download the third-party wheels of all distributions; return their directory.

    Raises `CalledProcessError` where the index lacks one: pip's output says which.
    """
    others, constraints = area / "wheels", area / "constraints.txt"
    constraints.write_text("\n".join(pins(LOCK.read_text())) + "\n")
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:"]
    command += ["-c", str(constraints), "-d", str(others), *map(str, ours.glob("kcm*.whl"))]
    subprocess.run(command, check=True, cwd=area)
    for wheel in others.glob("kcm*.whl"):
        wheel.unlink()
    return others


def check_environment(environment: Environment, area: Path, wheels: Iterable[Path]) -> list[str]:
    """Install one environment into an empty directory of `area`, and say what is wrong with it."""
    home = area / environment.name.replace(" ", "-")
    make = [sys.executable, "-m", "venv", "--without-pip", str(home)]
    subprocess.run(make, check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "--isolated", "--python", str(home / "bin" / "python")]
    sources = [f"--find-links={directory}" for directory in wheels]
    install = ["install", "-q", "--no-index", "--no-compile", *sources, *environment.installs]
    done = run([*pip, *install], area)
    if done.returncode != 0:
        return [f"pip install failed: {done.stdout}"]
    problems = [*check_packages(environment, home), *check_modules(environment, home)]
    for command in environment.commands:
        done = run([str(home / "bin" / command.argv[0]), *command.argv[1:]], home)
        if done.returncode != command.code or command.text not in done.stdout:
            shown = " ".join(command.argv)
            problems.append(f"`{shown}`: exit code {done.returncode}, output: {done.stdout}")
    checked = run([*pip, "check"], area)
    return problems if checked.returncode == 0 else [*problems, f"pip check: {checked.stdout}"]


def check_packages(environment: Environment, home: Path) -> list[str]:
    """Compare our packages that are installed with those that the environment may have."""
    (site,) = home.glob("lib/python*/site-packages")
    present = {path.name for path in site.glob("kcm*") if path.suffix != ".dist-info"}
    problems = [f"package {name} is missing" for name in sorted(environment.packages - present)]
    more = sorted(present - environment.packages)
    return [*problems, *(f"package {name} must not be here" for name in more)]


def check_modules(environment: Environment, home: Path) -> list[str]:
    """Import every module of every package there: a dependency that is not declared is missing."""
    python = str(home / "bin" / "python")
    done = run([python, "-I", "-c", PROBE, *sorted(environment.packages)], home)
    if done.returncode != 0:
        return [f"a package cannot be imported: {done.stdout}"]
    problems = []
    for line in done.stdout.splitlines():
        kind, module, detail = line.split(" ", 2)
        if kind == "home" and not Path(detail).is_relative_to(home):
            problems.append(f"{module} was imported from {detail}, outside the environment")
        optional = module.startswith(OPTIONAL) and detail.partition(".")[0] in EXTRAS
        if kind == "lacks" and not optional:
            problems.append(f"{module} needs the module {detail}, which is not installed")
    return problems


def run(command: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    """Run a command outside the checkout, without the Python settings of this process."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command,
        cwd=where,
        env=settings,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


if __name__ == "__main__":
    sys.exit(main())
