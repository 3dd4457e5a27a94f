"""The collector's settings: they are made before a component loads, and nothing else changes."""

import ast
import atexit
import gc
from importlib.util import find_spec
from pathlib import Path

import kcm_auditor.__main__
import pytest
from kcm_runtime import garbage_collection


def test_garbage_is_collected_seldom_and_not_at_the_end(monkeypatch):
    before, at_the_end = gc.get_threshold(), []
    monkeypatch.setattr(atexit, "register", at_the_end.append)
    try:
        garbage_collection.collect_seldom()
        assert gc.get_threshold() == (garbage_collection.OBJECTS, *before[1:])
        assert at_the_end == [gc.freeze]
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize(
    "module", ["kcm_core.__main__", "kcm_gateway.__main__", "kcm_auditor.__main__", "kcm.entry"]
)
def test_a_process_says_so_before_it_loads_its_component(module):
    tree = ast.parse(Path(find_spec(module).origin).read_text())
    called = next(
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "collect_seldom"
    )
    earlier = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.lineno < called
    }
    ours = {name for name in earlier if name.startswith("kcm")}
    assert ours - {"kcm_core.unsealer.import_guard"} == {"kcm_runtime.garbage_collection"}


def test_who_imports_a_component_keeps_its_own_settings():
    assert kcm_auditor.__main__.main
    assert gc.get_threshold()[0] != garbage_collection.OBJECTS
