"""Whole runs: they hold, they are the same for the same seed, and they notice what is broken."""

import pytest

from tests.simulation.drawing import draw
from tests.simulation.other_process import output
from tests.simulation.run import Run, run

TRACE = """
import hashlib, sys
from tests.simulation.drawing import draw
from tests.simulation.run import Run
made, digest = Run(draw(int(sys.argv[1]))), hashlib.sha256()
loop = made.world.loop
loop.on_step = lambda name, handle: digest.update(f"{loop.now!r} {name}".encode())
loop.run(made.main())
print(digest.hexdigest(), loop.steps, made.world.random.random())
loop.close()
"""


def test_every_default_seed_has_a_plan():
    assert len({draw(seed).lasts for seed in range(2000)}) == 2000


@pytest.mark.parametrize("seed", range(4))
def test_a_run_holds(seed):
    result = run(seed)
    assert result.failure == "", "\n".join(result.events)
    assert result.served > 20


def test_a_seed_is_the_whole_run():
    run_of_five = output(TRACE, 5, "1")
    assert run_of_five == output(TRACE, 5, "2")
    assert run_of_five != output(TRACE, 6, "1")


def test_a_plan_is_data():
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_what_serves_on_is_noticed():
    assert "invariant" in run(0, "serves-on").failure


def test_a_world_composes_every_member():
    made = Run(draw(3))
    assert set(made.world.members) == {one.name for one in made.plan.members}
    made.world.loop.close()
