"""A link from a document outside `docs/` leads to a file; `make docs` checks those inside."""

import re

import pytest

from tests.architecture.words import ROOT

DOCUMENTS = sorted(
    path
    for place in ("*.md", "schemas/*.md", "client/*.md", "[deilst]*/*/*.md", ".github/**/*.md")
    for path in ROOT.glob(place)
    if "docs" not in path.parts
)


def test_there_are_documents_to_check():
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {"README.md", "RELEASE.md", "services/core/README.md"} <= names


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
    assert not [target for target in targets if not (path.parent / target).exists()]
