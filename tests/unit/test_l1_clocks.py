"""A clock that is off is named where a provider's answer shows it, and only there."""

from __future__ import annotations

from email.utils import formatdate
from types import SimpleNamespace

import pytest
from kcm_core.providers.clock_skew import told

NOW = 1_790_000_000.0
WRONG = "the credentials are wrong"


class Told(Exception):
    """An SDK's error with an answer of its own shape."""

    def __init__(self, text: str, response: object = None) -> None:
        super().__init__(text)
        self.response = response


def of_boto(date):
    return {"Error": {}, "ResponseMetadata": {"HTTPHeaders": {"date": date}}}


def of_azure(date):
    return SimpleNamespace(headers={"Date": date})


def of_grpc(date):
    return SimpleNamespace(
        initial_metadata=lambda: (("date", date),), trailing_metadata=lambda: None
    )


@pytest.mark.parametrize("answer", [of_boto, of_azure, of_grpc])
@pytest.mark.parametrize(
    ("text", "of_credentials", "ahead_s", "said"),
    [
        ("no", True, 0, ""),
        ("no", True, 59, ""),
        ("no", True, 60, "60 s ahead of"),
        ("no", True, -600, "600 s behind"),
        ("no", False, 600, ""),
        ("Signature expired: 20260921T… is now earlier than …", False, 600, "600 s ahead of"),
        ("Signature expired: it was long on its way", True, 5, ""),
        ("Signature not yet current: …", True, 6, "6 s ahead of"),
        ("RequestTimeTooSkewed", True, -301, "301 s behind"),
        ("AADSTS700024: … is not within its valid time range.", True, 400, "400 s ahead of"),
        ("invalid_grant: … Check your iat and exp values in the JWT", True, -90, "90 s behind"),
    ],
)
def test_a_difference_is_measured(answer, text, of_credentials, ahead_s, said):
    error = Told(text, answer(formatdate(NOW - ahead_s, usegmt=True)))
    found = told(WRONG, error, of_credentials=of_credentials, now=lambda: NOW)
    clock = f"{WRONG}; this machine's clock is {said} the provider's"
    assert found == (clock if said else WRONG)


@pytest.mark.parametrize(
    "response",
    [None, {}, of_boto(None), of_boto("yesterday"), of_azure("s3cret"), of_grpc(7), object()],
)
def test_without_a_date_the_words_count(response):
    expired = Told("certificate is not yet valid: s3cret", response)
    assert told(WRONG, expired, of_credentials=False, now=lambda: NOW).endswith("clock right?")
    assert told(WRONG, Told("no", response), of_credentials=True, now=lambda: NOW) == WRONG
