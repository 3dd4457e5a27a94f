"""Which seeds a run takes."""

from argparse import Namespace

from tests.simulation.__main__ import _seeds


def asked(**given):
    return Namespace(**{"seed": None, "sample": None, "first": 0, "seeds": 2000, **given})


def test_all_of_them():
    assert _seeds(asked(first=10, seeds=5)) == [10, 11, 12, 13, 14]


def test_one_of_them():
    assert _seeds(asked(seed=7, sample=3)) == [7]


def test_a_sample_is_chosen_at_random_and_printed(capsys):
    one, other = _seeds(asked(sample=60)), _seeds(asked(sample=60))
    assert one != other
    for seeds in (one, other):
        assert len(set(seeds)) == 60
        assert set(seeds) <= set(range(2000))
    text = capsys.readouterr().out.splitlines()[0]
    assert text == f"60 of the seeds 0 to 1999: {' '.join(map(str, one))}"
