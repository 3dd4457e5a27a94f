"""No file and no function is longer than the limit; what still is may only shrink."""

from collections import Counter

import pytest

from tests.architecture import ratchet, sizes

LONG = "def long():\n" + "    pass\n" * sizes.FUNCTION_LINES
METHOD = "class One:\n    async def long(self):\n" + "        pass\n" * sizes.FUNCTION_LINES


def test_a_function_over_the_limit_is_found():
    assert list(sizes.sizes(LONG)) == [("::long", sizes.FUNCTION_LINES + 1)]
    assert list(sizes.sizes(METHOD)) == [("::One.long", sizes.FUNCTION_LINES + 1)]
    assert not list(sizes.sizes(LONG.removesuffix("    pass\n")))


def test_a_function_inside_a_statement_is_found():
    text = "if True:\n" + "".join(f"    {line}\n" for line in LONG.splitlines())
    assert [name for name, _ in sizes.sizes(text)] == ["::long"]


def test_a_file_over_the_limit_is_found():
    text = "x = 1\n" * sizes.FILE_LINES
    assert not list(sizes.sizes(text))
    assert list(sizes.sizes(text + "x = 1\n")) == [("", sizes.FILE_LINES + 1)]


def test_what_grows_what_is_new_and_a_loose_budget_fail():
    budget = Counter({"a.py": 400, "b.py": 500, "gone.py": 360})
    assert not sizes.problems(Counter(budget), budget)
    found = Counter({"a.py": 401, "b.py": 499, "new.py": 351})
    grown, loose, gone, new = sizes.problems(found, budget)
    assert grown == "a.py: 401 lines, 400 allowed"
    assert loose.startswith("b.py: 500 lines allowed; lower it")
    assert gone.startswith("gone.py: 360 lines allowed; lower it")
    assert new == "new.py: 351 lines, no more than the limit allowed"


@pytest.fixture
def project(tmp_path):
    (tmp_path / sizes.BUDGET).parent.mkdir(parents=True)
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "a.py").write_text(LONG)
    return tmp_path


def test_an_update_never_raises_the_budget(project, capsys):
    assert sizes.main(["--update"], project) == 1
    assert not ratchet.read(project / sizes.BUDGET)
    assert sizes.main(["--allow-new"], project) == 0
    assert ratchet.read(project / sizes.BUDGET) == {"libs/a.py::long": 61}
    (project / "libs" / "a.py").write_text("pass\n")
    assert sizes.main([], project) == 1
    assert sizes.main(["--update"], project) == 0
    assert not ratchet.read(project / sizes.BUDGET)


def test_this_project_keeps_its_budget():
    assert not sizes.problems(sizes.present(sizes.ROOT), ratchet.read(sizes.ROOT / sizes.BUDGET))
