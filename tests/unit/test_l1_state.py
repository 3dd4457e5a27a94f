import pytest
from kcm_core.providers.state import TEXT_MAX, L1Error, L1State, safe_text


def test_exactly_the_four_refusals_kill():
    assert {state for state in L1State if state.refused} == {
        L1State.DISABLED,
        L1State.FORBIDDEN,
        L1State.PENDING_DELETION,
        L1State.DELETED,
    }


def test_success_is_no_error():
    with pytest.raises(ValueError, match="enabled"):
        L1Error(L1State.ENABLED)


def test_an_error_says_its_state_its_hint_and_the_foreign_class():
    error = L1Error(L1State.UNREACHABLE, "the token is not there", cls="NoSuchToken")
    assert str(error) == "unreachable: the token is not there (NoSuchToken)"
    assert str(L1Error(L1State.DELETED)) == "deleted"


def test_texts_from_outside_cannot_write_to_a_terminal_or_fill_a_log():
    error = L1Error(L1State.INVALID, "\x1b[2J\nroot:" + "x" * 1000, cls="A\x00B")
    assert "\x1b" not in str(error)
    assert "\n" not in error.detail
    assert len(error.detail) == TEXT_MAX
    assert error.cls == "A?B"
    assert safe_text("arn:aws:iam::1:role/kcm") == "arn:aws:iam::1:role/kcm"
