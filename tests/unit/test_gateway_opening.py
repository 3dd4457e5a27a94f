"""Which keys of a decryption are asked for together: within both bounds of a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_schemas import limits
from kcm_schemas.asks import split

SIZE = limits.PREFIX_SIZE


def name(version, prefix, number):
    """An L3 version and a wrapped key."""
    blob = prefix.to_bytes(SIZE, "big") + number.to_bytes(limits.WRAPPED_SIZE - SIZE, "big")
    return version.to_bytes(4, "big") + blob


def check(wanted, missing):
    """Every key that is missing is asked for once; returns the requests."""
    requests = list(split(wanted, missing))
    assert sorted(position for request in requests for position in request) == sorted(missing)
    for request in requests:
        asked = [wanted[position] for position in request]
        assert 0 < len(asked) <= limits.KEYS_MAX
        assert len({one[:4] for one in asked}) == 1
        assert len({one[4 : 4 + SIZE] for one in asked}) <= limits.PREFIXES_MAX
    return requests


@pytest.mark.parametrize(
    ("keys", "prefixes", "requests"),
    [
        (0, 1, 0),
        (1, 1, 1),
        (limits.KEYS_MAX, limits.PREFIXES_MAX, 1),
        (limits.KEYS_MAX + 1, 1, 2),
        (limits.PREFIXES_MAX + 1, limits.PREFIXES_MAX + 1, 2),
        (limits.KEYS_MAX, limits.KEYS_MAX, limits.KEYS_MAX // limits.PREFIXES_MAX),
    ],
)
def test_as_few_requests_as_the_bounds_allow(keys, prefixes, requests):
    wanted = [name(1, n * prefixes // max(keys, 1), n) for n in range(keys)]
    assert len(check(wanted, list(range(keys)))) == requests


@given(st.integers(0, 2500), st.integers(1, 700), st.integers(1, 3), st.randoms())
def test_whatever_is_wanted_stays_within_the_bounds(keys, prefixes, versions, random):
    wanted = [name(random.randint(1, versions), random.randrange(prefixes), n) for n in range(keys)]
    check(wanted, [position for position in range(keys) if random.random() < 0.9])
