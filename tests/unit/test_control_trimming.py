"""Up to where an audit stream may be emptied: a quorum's word, compared, and nobody else's."""

from __future__ import annotations

import pytest
from kcm_core.trimming.policy import (
    Claim,
    Doubt,
    Extent,
    KnownPosition,
    Level,
    Policy,
    decide,
    level,
    raised,
)

DAY = 86_400_000
NOW = 100 * DAY
ALL = Policy(quorum=0, keep_ms=7 * DAY, keep_full_ms=DAY)
ONE = Policy(quorum=1, keep_ms=7 * DAY, keep_full_ms=DAY)
TWO = Policy(quorum=2, keep_ms=7 * DAY, keep_full_ms=DAY)


def digest(through: int) -> bytes:
    return through.to_bytes(32, "big")


def claim(name: str, through: int, said: bytes | None = None) -> Claim:
    return Claim(name, through, digest(through) if said is None else said)


def known(*days: float) -> list[KnownPosition]:
    """A place every 64 messages, each so many days old."""
    return [
        KnownPosition(64 * at, digest(64 * at), int(NOW - days * DAY))
        for at, days in enumerate(days, 1)
    ]


OLD = known(30, 20, 10, 2, 0)


def run(
    *claims,
    auditors=("a", "b"),
    floors=None,
    places=OLD,
    policy=ALL,
    trimmed=0,
    last=400,
    fill=0.1,
    now_ms=NOW,
):
    return decide(
        claims, auditors, floors or {}, places, policy,
        Extent(trimmed, last, fill), now_ms,
    )  # fmt: skip


def test_the_lowest_of_all_auditors_counts():
    found = run(claim("a", 320), claim("b", 128))
    assert (found.through, found.digest, found.why) == (128, digest(128), "")
    assert found.witnesses == ("a", "b")


def test_a_quorum_of_one_goes_as_far_as_the_best_and_two_as_the_second_best():
    heads = (claim("a", 192), claim("b", 64))
    assert run(*heads, policy=ONE).through == 192
    assert run(*heads, policy=ONE).witnesses == ("a",)
    assert run(*heads, policy=TWO).through == 64
    assert run(*heads, claim("c", 128), auditors="abc", policy=TWO).through == 128
    assert run(*heads, claim("c", 128), auditors="abc", policy=ALL).through == 64


def test_what_is_young_stays_and_nearly_full_makes_it_less_but_never_the_quorum():
    heads = (claim("a", 320), claim("b", 320))
    assert run(*heads).through == 192
    assert run(*heads, fill=0.89).through == 192
    assert run(*heads, fill=0.90).through == 256
    assert run(*heads, fill=1.0).through == 256
    found = run(claim("a", 320), fill=1.0)
    assert (found.through, found.doubts) == (0, {"b": Doubt.MISSING})
    assert found.why == "2 Auditors have to agree, and 1 do"


@pytest.mark.parametrize("keep_ms", [0, DAY, 7 * DAY])
def test_the_shorter_of_both_ages_holds_when_it_is_nearly_full(keep_ms):
    policy = Policy(quorum=0, keep_ms=keep_ms, keep_full_ms=DAY)
    heads = (claim("a", 320), claim("b", 320))
    assert run(*heads, policy=policy, fill=0.95).through == (320 if keep_ms == 0 else 256)


@pytest.mark.parametrize(
    ("said", "floor", "doubt"),
    [
        (claim("b", 64), claim("b", 128), Doubt.LOWER),
        (claim("b", 128, b"x" * 32), claim("b", 128), Doubt.CHANGED),
        (claim("b", 128, b"x" * 32), None, Doubt.DIFFERS),
        (claim("b", 401), None, Doubt.TOO_HIGH),
        (claim("b", 384), None, Doubt.UNCOMPARED),
        (claim("b", 100), None, Doubt.UNCOMPARED),
    ],
    ids=lambda value: value.name if isinstance(value, Doubt) else "",
)
def test_a_rolled_back_or_lying_auditor_does_not_count(said, floor, doubt):
    floors = {} if floor is None else {"b": floor}
    for policy in (ALL, TWO):
        found = run(claim("a", 320), said, floors=floors, policy=policy)
        assert (found.through, found.doubts) == (0, {"b": doubt})
    # Where one is enough, the honest one is, and the other is named all the same.
    found = run(claim("a", 320), said, floors=floors, policy=ONE)
    assert (found.through, found.witnesses, found.doubts) == (192, ("a",), {"b": doubt})


def test_a_rolled_back_auditor_counts_again_above_what_it_had_signed():
    floors = {"b": claim("b", 128)}
    assert run(claim("a", 320), claim("b", 192), floors=floors).through == 192


def test_nothing_is_trimmed_twice_and_a_head_below_the_trim_holds_it_back():
    heads = (claim("a", 320), claim("b", 128))
    found = run(*heads, trimmed=128, places=OLD[1:])
    assert (found.through, found.why) == (0, "the Auditors have nothing beyond the last trim")
    found = run(claim("a", 320), claim("b", 64), trimmed=128, places=OLD[1:])
    assert (found.through, found.doubts) == (0, {})
    found = run(claim("a", 320), claim("b", 320), trimmed=192, places=OLD[2:])
    assert (found.through, found.why) == (0, "everything is younger than what is kept")


def test_more_than_there_are_can_never_agree():
    assert run(claim("a", 64), auditors=("a",), policy=TWO).why == (
        "2 Auditors have to agree, and the roster has 1"
    )
    assert run(auditors=()).why == "the roster has no Auditor"
    assert run(auditors=(), policy=ONE).through == 0


def test_a_stranger_does_not_count():
    assert run(claim("a", 320), claim("x", 320)).through == 0


def test_floors_only_rise():
    floors = {"a": claim("a", 128)}
    assert raised(floors, {"a": claim("a", 64)}) is None
    assert raised(floors, {"a": claim("a", 128)}) is None
    assert raised(floors, {"a": claim("a", 192), "b": claim("b", 64)}) == {
        "a": claim("a", 192), "b": claim("b", 64),
    }  # fmt: skip
    assert floors == {"a": claim("a", 128)}


def test_one_crossing_is_one_warning():
    seen, now = [], Level.ROOMY
    for fill in (0.69, 0.70, 0.66, 0.71, 0.64, 0.70, 0.90, 0.86, 0.91, 0.84, 1.0, 0.0):
        now = level(now, fill)
        seen.append(now.value)
    assert seen == [0, 1, 1, 1, 0, 1, 2, 2, 2, 1, 2, 0]
