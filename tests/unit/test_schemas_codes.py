"""Error codes: every one has a text, and an error says nothing but what it was given."""

from __future__ import annotations

import pytest
from kcm_schemas.codes import RETRYABLE, TEXT, Code, KcmError


def test_every_code_has_a_text() -> None:
    assert set(TEXT) == set(Code)
    assert len(set(TEXT.values())) == len(TEXT)


@pytest.mark.parametrize("code", Code)
def test_an_error_says_its_code_and_text(code: Code) -> None:
    error = KcmError(code)
    assert str(error) == f"{code.value}: {TEXT[code]}"
    assert error.retryable is (code in RETRYABLE)
    assert str(KcmError(code, "why")) == f"{code.value}: why"


def test_what_somebody_must_decide_is_not_retried() -> None:
    final = {
        Code.MALFORMED,
        Code.TAMPERED,
        Code.FORBIDDEN,
        Code.WRONG_REGION,
        Code.TENANT_KILLED,
        Code.KEY_SHREDDED,
        Code.KEY_DESTROYED,
        Code.OK,
    }
    assert not final & RETRYABLE
