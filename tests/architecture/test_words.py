"""The word list finds the old wording and leaves correct English alone; its budget only shrinks."""

import dataclasses
from collections import Counter

import pytest

from tests.architecture import prose, words
from tests.architecture.word_rules import RULES

HITS = {
    "whoever": [
        "Whoever asked must discard the reply.",
        "It is told to whomever it concerns.",
    ],
    "who without a noun": [
        "Who is not on the roster is refused.",
        "The key is gone. Who asks for it gets an error.",
        "One passes; **who** waits for a key gets none.",
        "The result is signed by who concluded it.",
        "That may say only who has followed the stream.",
        "But who keeps on differing reads the stream again.",
    ],
    "nobody, somebody": [
        "Nobody is trusted alone.",
        "It belongs to somebody\nelse.",
        "Everybody reads it, and anybody may.",
    ],
    "an own, the own": ["Read it up to an own\nwrite.", "With the own signature."],
    "behind": [
        "Resume behind the last delivery.",
        "The names behind `after`.",
        "What is behind the damage is gone.",
    ],
    "anew": ["The consumer is made anew."],
    "lies": [
        "The file lies in the same directory.",
        "What lay there before was replaced.",
        "The place where a hold lies, and its id.",
    ],
    "stands": [
        "How it is built stands in the architecture.",
        "Show how the hold stands.",
        "It stands in the log.",
    ],
    "told": [
        "The first that fails is what is told.",
        "A message is told to be recorded after the flush.",
        "A repetition is told from a fork by its hash.",
    ],
    "said": ["What is missing is said with the next step."],
    "is none": ["the vault's answer is none", "A failure that is none."],
    "as it is known": ["Write the hold as it is known here."],
    "goes on": ["The service goes on without it.", "Go on from there.", "They went on serving."],
    "of before": ["A journal of before has no digest."],
    "all the same": ["It counts all the same.", "the others are recorded all the same"],
    "word": ["A Core's word that a kill is complete.", "A signed word about it."],
    "house": ["The rules of the house."],
    "fence": [
        "The fences of the other regions have ended.",
        "A region that judges by a higher roster is not fenced.",
    ],
    "boot": ["Every boot sends a receipt.", "An instance that booted later."],
    "on record": ["Every instance on record has purged."],
    "record, of something else": ["Its lease\nrecord was read back.", "an audit record"],
    "sentinel": ["The sentinel uses every key."],
    "proof": ["A proof that another Core wrote postpones the probe."],
    "seal a tenant": [
        "It seals the tenants that were not used for longest.",
        "At the end of the lease the tenant is sealed.",
    ],
    "tenant key": ["Open the tenant key first."],
}

MISSES = {
    "whoever": ["However it arrived, it counts."],
    "who without a noun": [
        "An operator who has the role may sign.",
        "The operators\nwho signed it have left.",
        "Who may sign what is one table.",
        "Who was it that has signed this?",
        "Say when and by whom it was signed.",
        "Who may use an object, and when.",
        "Recorded with who, what and why.",
    ],
    "nobody, somebody": ["The body of the request. No body was sent. Run it as `nobody`."],
    "an own, the own": ["Its own record. A key of its own. The owner owns the town."],
    "behind": [
        "Run it behind a reverse proxy.",
        "The replica lags behind.",
        "It leaves no files behind.",
        "Bring the store that is behind up to the other one.",
    ],
    "anew": ["A new consumer. Renew it."],
    "lies": [
        "A broker that lies can withhold messages.",
        "A Core that lies about its holds, or lies in its answers, is found out.",
        "It relies on the clock. An underlying cause. Delay there.",
    ],
    "stands": [
        "KEK stands for key-encryption key. It stands in for an HSM.",
        "A stand-in for the broker. Standard output. Understand it.",
    ],
    "told": [
        "Until it is told to stop.",
        "The two cases can be told apart.",
        "The client told that Core to purge.",
    ],
    "said": ["The Core said no. It is said to be fast."],
    "is none": ["There is none. None is left. That is none of its concern."],
    "as it is known": ["The hold is known. As it is signed, it counts."],
    "goes on": [
        "A key never goes on disk.",
        "It depends on what is going on.",
        "Go only on request. An ongoing call.",
    ],
    "of before": ["Before and after. A copy of what came before."],
    "all the same": ["They have all the same members. The same for all."],
    "word": ["The word list. Its password. Word for word."],
    "house": ["The warehouse. In-house tools."],
    "fence": ["A fencing token. Geo-fenced records. A code fence. Use `--fence`."],
    "boot": [
        "`CLOCK_BOOTTIME`. A reboot. Secure boot. The bootstrap.",
        "When the machine boots, the service starts.",
    ],
    "on record": ["Recorded once. On records of all tenants."],
    "record, of something else": ["A data record. Leased records. The audit recorder."],
    "sentinel": ["A sentinel value ends the queue."],
    "proof": ["An inclusion proof. Tamper-proof. Proof of possession. Proofread it."],
    "seal a tenant": ["Seal the key. A sealed request of a tenant. The seal key."],
    "tenant key": ["The tenant root. The keys of a tenant."],
}


def found(text):
    """Return the rules that have a hit in a text, as a Markdown file has it."""
    return {
        rule.name
        for passage in prose.markdown(text)
        for rule in RULES
        if any(rule.find(passage.text))
    }


def test_every_rule_has_examples():
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))
    assert set(HITS) == set(MISSES) == set(names)
    assert all(rule.instead and rule.why for rule in RULES)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in HITS for text in HITS[name]])
def test_old_wording_is_found(name, text):
    assert name in found(text)


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name in MISSES for text in MISSES[name]]
)
def test_correct_wording_is_left_alone(name, text):
    assert name not in found(text)


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.unless != r"(?!)"], ids=lambda r: r.name
)
def test_an_exception_is_needed_by_an_example(rule):
    without = dataclasses.replace(rule, unless=r"(?!)")
    assert any(list(without.find(text)) for text in MISSES[rule.name])


def lines_of(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return [(hit.line, hit.rule.name) for hit in words.hits(path, tmp_path)]


def test_markdown_is_read_without_code_and_with_its_lines(tmp_path):
    text = (
        "# Title\n\nNothing here.\n\n"
        "```sh\nnobody\n```\n\n"
        "- Run as `nobody`, see [this](nobody.md) and https://example.org/nobody\n"
        "- A list: the\n  own key.\n"
        "<!-- nobody -->\n"
        "| a table | of nobody |\n"
        "````\n```\nnobody\n````\n"
        "It is anew.\n"
    )
    assert lines_of(tmp_path, "page.md", text) == [
        (10, "an own, the own"),
        (13, "nobody, somebody"),
        (18, "anew"),
    ]


def test_a_name_in_backticks_parts_the_words_around_it(tmp_path):
    assert lines_of(tmp_path, "page.md", "It is `x` none. The `x` own.\n") == []


def test_a_changelog_is_checked_in_its_newest_section(tmp_path):
    text = "# Changelog\n\n## Unreleased\n\n- Made anew.\n\n## 0.1\n\n- Made anew.\n"
    assert lines_of(tmp_path, "CHANGELOG.md", text) == [(5, "anew")]
    assert lines_of(tmp_path, "other.md", text) == [(5, "anew"), (9, "anew")]


def test_code_is_read_in_docstrings_comments_and_strings(tmp_path):
    source = '''"""First line.

Made anew.
"""

nobody = anew = 1  # identifiers do not count, but
# nobody reads a comment
def f(x: int) -> str:
    """For `nobody` and ``anew``."""
    log("nobody")  # noqa: made anew
    raise ValueError(
        f"the own {x} and "
        f"an own {x}"
    )
'''
    assert lines_of(tmp_path, "m.py", source) == [
        (3, "anew"),
        (7, "nobody, somebody"),
        (10, "anew"),
        (12, "an own, the own"),
        (12, "an own, the own"),
    ]


def test_a_phrase_across_lines_of_a_comment_is_found_once(tmp_path):
    assert lines_of(tmp_path, "m.py", "# Read it with the\n# own key.\nx = 1\n# own\n") == [
        (1, "an own, the own")
    ]


def test_a_hit_names_place_wording_and_suggestion(tmp_path):
    (tmp_path / "a.md").write_text("One.\n\nTwo: an\nown key.\n")
    (hit,) = words.hits(tmp_path / "a.md", tmp_path)
    assert str(hit).startswith("a.md:3: 'an own': its own")


def test_the_files_are_prose_and_product_code():
    names = {path.relative_to(words.ROOT).as_posix() for path in words.checked_files(words.ROOT)}
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= names
    assert "docs/architecture.md" in names
    assert sum(name.startswith("docs/adr/") for name in names) > 20
    assert sum(name.startswith("schemas/src/") for name in names) > 10
    assert sum("/src/kcm_core/" in name for name in names) > 50
    assert not [name for name in names if name.startswith((".venv", "tests/"))]


def test_more_hits_than_allowed_and_a_loose_budget_fail():
    budget = Counter({"a.md": 2, "b.md": 2, "gone.md": 1})
    assert not words.problems(Counter(budget), budget)
    over, loose, gone = words.problems(Counter({"a.md": 3, "b.md": 1}), budget)
    assert over.startswith("a.md: 3 hits, 2 allowed")
    assert loose.startswith("b.md: 2 allowed, 1 hits")
    assert gone.startswith("gone.md: 1 allowed, 0 hits")
    assert words.problems(Counter({"new.md": 1}), Counter())


@pytest.fixture
def project(tmp_path):
    """A project of one page with two hits, and its budget, which is not written yet."""
    budget = tmp_path / words.BUDGET
    budget.parent.mkdir(parents=True)
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("Made anew.\n\nMade anew.\n")
    return tmp_path, page, budget


def test_an_update_lowers_the_budget_and_never_raises_it(project, capsys):
    root, page, budget = project

    def run(*arguments):
        status = words.main(list(arguments), root)
        lines = budget.read_text().splitlines()[1:] if budget.exists() else None
        return status, lines

    assert run("--check") == (1, None)
    assert run("--update") == (1, [])
    assert run("--update", "--allow-new") == (0, ["docs/page.md 2"])
    assert run("--check") == (0, ["docs/page.md 2"])

    page.write_text("Made anew.\n")
    assert run("--check") == (1, ["docs/page.md 2"])
    assert run("--update") == (0, ["docs/page.md 1"])

    page.write_text("Made anew, anew.\n")
    assert run("--update") == (1, ["docs/page.md 1"])

    page.unlink()
    assert run("--update") == (0, [])
    assert "0 hits left, 0 allowed" in capsys.readouterr().out


def test_the_list_is_of_the_paths_that_are_given(project, capsys):
    root, page, _ = project
    (root / "README.md").write_text("Made anew.\n")
    assert words.main([str(page.parent)], root) == 0
    *hits, last = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in hits] == ["docs/page.md:1", "docs/page.md:3"]
    assert last == "2 hits in 1 files"
    for wrong in ([str(page.parent / "absent")], ["--allow-new"], ["--check", str(page)]):
        with pytest.raises(SystemExit):
            words.main(wrong, root)


def test_this_project_keeps_its_budget():
    assert not words.problems(words.counts(words.ROOT), words.read_budget(words.ROOT))
