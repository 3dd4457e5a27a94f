"""The check of the wheels notices a wheel that is not complete."""

import venv
import zipfile

import pytest

from tests.dist import (
    BASE,
    KEYS,
    LOCK,
    SESSIONS,
    Environment,
    check_modules,
    check_packages,
    compare,
    pins,
)
from tests.dist import ENVIRONMENTS as USES

METADATA = "part-1.dist-info/licenses"


@pytest.fixture
def member(tmp_path):
    package = tmp_path / "part" / "src" / "kcm_part"
    package.mkdir(parents=True)
    for name in ("__init__.py", "one.py", "py.typed"):
        (package / name).touch()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "one.pyc").touch()
    return tmp_path / "part"


def pack(member, *names):
    wheel = member / "kcm_part-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return wheel


COMPLETE = (
    "kcm_part/__init__.py",
    "kcm_part/one.py",
    "kcm_part/py.typed",
    f"{METADATA}/LICENSE",
    f"{METADATA}/NOTICE",
)


def test_a_complete_wheel_passes(member):
    assert compare(member, pack(member, *COMPLETE)) == []


@pytest.mark.parametrize("name", COMPLETE)
def test_a_file_that_a_wheel_lacks_is_named(member, name):
    (problem,) = compare(member, pack(member, *(one for one in COMPLETE if one != name)))
    assert problem.endswith(f"lacks {name.removeprefix(METADATA + '/')}")


def test_a_file_that_is_in_no_source_tree_is_named(member):
    (problem,) = compare(member, pack(member, *COMPLETE, "kcm_part/notes.txt"))
    assert problem.endswith("has also kcm_part/notes.txt")


@pytest.fixture
def home(tmp_path):
    venv.create(tmp_path / "home", symlinks=True)
    return tmp_path / "home"


def install(home, **files):
    (site,) = home.glob("lib/python*/site-packages")
    (site / "kcm_part").mkdir()
    for name, text in files.items():
        (site / "kcm_part" / f"{name}.py").write_text(text)


def uses(*packages):
    return Environment("", (), frozenset(packages), ())


def test_packages_that_are_missing_or_too_many_are_named(home):
    install(home, __init__="")
    assert check_packages(uses("kcm_part"), home) == []
    assert check_packages(uses("kcm_other"), home) == [
        "package kcm_other is missing",
        "package kcm_part must not be here",
    ]


def test_a_dependency_that_is_not_declared_is_named(home):
    install(home, __init__="", good="import json", bad="import msgpack")
    (problem,) = check_modules(uses("kcm_part"), home)
    assert problem == "kcm_part.bad needs the module msgpack, which is not installed"


def test_a_module_that_cannot_be_imported_is_a_failure(home):
    install(home, __init__="", bad="1 / 0")
    (problem,) = check_modules(uses("kcm_part"), home)
    assert "ZeroDivisionError" in problem


def test_the_pins_are_those_of_the_lock_without_hashes_and_extras():
    text = 'one[extra]==1.0 ; sys_platform == "linux" \\\n    --hash=sha256:00 \\\n    # via two\n'
    assert pins(text) == ['one==1.0 ; sys_platform == "linux"']
    assert len(pins(LOCK.read_text())) > 50


def test_neither_the_sdk_nor_an_auditor_may_have_what_holds_keys():
    (auditor,) = (use for use in USES if use.installs == ("kcm-auditor",))
    (sdk,) = (use for use in USES if use.installs == ("kcm",))
    for use in (auditor, sdk):
        assert not use.packages & (KEYS - SESSIONS)
    assert not auditor.packages & SESSIONS - BASE
    assert {"kcm_keymem"} <= KEYS - SESSIONS
