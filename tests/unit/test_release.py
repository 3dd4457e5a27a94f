"""The release check refuses what must not be released."""

import subprocess
import sys

import pytest

from tests.release import ROOT, VERSION_FILE, contact_problems, git, problems

CONTACT = "Contact: mailto:security@kcm.dev\n"
CHANGES = "# Changelog\n\n## Unreleased\n\n## 1.2.0 - 2026-11-29\n\n### Added\n- All of it.\n"


def commit(root):
    git(root, "add", "-A")
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    git(root, *who, "-c", "commit.gpgsign=false", "commit", "-qm", "all")


@pytest.fixture
def root(tmp_path):
    (tmp_path / VERSION_FILE).parent.mkdir(parents=True)
    (tmp_path / VERSION_FILE).write_text('VERSION: Final = "1.2.0"\n')
    (tmp_path / "SECURITY.md").write_text(f"# Security\n\n{CONTACT}")
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def check(root):
    command = [sys.executable, "-m", "tests.release", str(root)]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def test_a_complete_checkout_passes(root):
    done = check(root)
    assert (done.returncode, done.stdout) == (0, "version 1.2.0 can be released\n")


def test_the_placeholder_of_the_contact_is_refused(root):
    (root / "SECURITY.md").write_text(CONTACT.replace("kcm.dev", "example.invalid"))
    commit(root)
    done = check(root)
    assert done.returncode == 1
    assert "placeholder: mailto:security@example.invalid" in done.stderr


def test_this_checkout_says_where_to_report():
    text = (ROOT / "SECURITY.md").read_text()
    assert not [problem for problem in contact_problems(text) if "placeholder" not in problem]


def test_a_missing_contact_is_refused(root):
    (root / "SECURITY.md").write_text("Write to the maintainers.\n")
    commit(root)
    (problem,) = problems(root)
    assert problem.startswith("SECURITY.md has no line")


@pytest.mark.parametrize(
    "address",
    ["security@example.com", "security@kcm.example", "a@mail.example.org", "a@host.test"],
)
def test_an_address_that_no_one_can_own_is_a_placeholder(address):
    assert list(contact_problems(f"Contact: <mailto:{address}>\n"))


@pytest.mark.parametrize("url", ["https://kcm.dev/report", "https://github.com/kcm/kcm/security"])
def test_a_page_can_be_the_contact(url):
    assert not list(contact_problems(f"Contact: {url}\n"))


def test_a_failure_of_git_is_reported_with_its_text(root):
    (root / ".git" / "HEAD").unlink()
    done = check(root)
    assert done.returncode == 1
    assert done.stderr.startswith("release-check: fatal: not a git repository")


@pytest.mark.parametrize("name", ["notes.txt", "SECURITY.md"])
def test_a_work_tree_with_changes_is_refused(root, name):
    with (root / name).open("a") as file:
        file.write("more\n")
    (problem,) = problems(root)
    assert "not committed" in problem
    assert name in problem


@pytest.mark.parametrize(
    "text",
    [
        CHANGES.replace("1.2.0", "1.1.0"),
        CHANGES.replace(" - 2026-11-29", ""),
        CHANGES.replace("- All of it.\n", ""),
        CHANGES.replace("- All of it.\n", "\n## 1.1.0 - 2026-01-01\n- Something older.\n"),
    ],
)
def test_a_version_without_its_changes_is_refused(root, text):
    (root / "CHANGELOG.md").write_text(text)
    commit(root)
    (problem,) = problems(root)
    assert "1.2.0" in problem


def test_a_version_that_was_released_is_refused(root):
    git(root, "tag", "v1.2.0")
    (problem,) = problems(root)
    assert "tag v1.2.0" in problem
