"""The glossary is in order, says each term once, and is found from where readers begin."""

import re
from itertools import pairwise

import pytest

from tests.architecture.words import ROOT

TEXT = (ROOT / "docs" / "glossary.md").read_text()
SECTIONS = {
    part.splitlines()[0]: re.findall(r"^### (.+)$", part, re.MULTILINE)
    for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
}
ENTRIES = dict(re.findall(r"^### (.+)\n\n((?:.+\n)+)", TEXT, re.MULTILINE))
TERMS = [term for terms in SECTIONS.values() for term in terms]


def anchor(heading):
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_every_term_is_defined_once():
    assert len(TERMS) > 60
    assert len({term.lower() for term in TERMS}) == len(TERMS)
    assert set(ENTRIES) == set(TERMS)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_terms_of_a_section_are_in_order(section):
    assert not [(one, two) for one, two in pairwise(SECTIONS[section]) if one.lower() > two.lower()]


@pytest.mark.parametrize("term", TERMS)
def test_a_definition_is_short(term):
    definition = re.split(r"\n(?:Source|Code|Formerly)\b", ENTRIES[term])[0]
    sentences = re.findall(r"[.!?](?=\s|$)", definition.replace("...", ""))
    assert 1 <= len(sentences) <= 3


def test_links_inside_the_glossary_lead_to_a_heading():
    headings = {anchor(heading) for heading in re.findall(r"^##+ (.+)$", TEXT, re.MULTILINE)}
    targets = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert {anchor(section) for section in SECTIONS} <= targets
    assert not targets - headings


def test_a_source_that_is_named_is_listed():
    body, sources = TEXT.split("\n## Sources\n")
    named = set(re.findall(r"\b(?:SP 800-\w+|FIPS [\d-]+|KMIP [\d.]+\d|C2SP|TUF|Raft)\b", body))
    assert len(named) >= 7
    assert not {name for name in named if name not in sources}
    assert not set(re.findall(r"\bRFC (\d+)", body)) - set(re.findall(r"\[(\d+)\]", sources))


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_glossary_is_linked(page):
    assert re.search(r"\]\((?:docs/)?glossary\.md\)", (ROOT / page).read_text())


def test_the_code_that_is_named_exists():
    named = set(re.findall(r"`(kcm[a-z_.0-9]*)`", TEXT))
    roots = [*ROOT.glob("*/src"), *ROOT.glob("*/*/src")]
    paths = {name: name.replace(".", "/") for name in named}
    assert len(named) > 40
    assert not {
        name
        for name, path in paths.items()
        if not any((root / path).is_dir() or (root / f"{path}.py").is_file() for root in roots)
    }
