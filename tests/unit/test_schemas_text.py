"""A number with its noun."""

import pytest
from kcm_schemas.text import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 tenants"), (1, "1 tenant"), (2, "2 tenants"), (1_000, "1000 tenants")],
)
def test_a_number_has_the_noun_that_fits(number: int, text: str) -> None:
    assert counted(number, "tenant") == text


def test_a_plural_may_be_another_word() -> None:
    assert counted(1, "entry", "entries") == "1 entry"
    assert counted(3, "entry", "entries") == "3 entries"
    assert counted(1, "statement still counts", "statements still count").endswith("counts")
