"""What a region forgot, its Cores remember; what one boot missed, it reads again."""

from kcm_bus.remembering import HoldFiles
from kcm_control.agreement import PATIENCE_S
from kcm_schemas import subjects

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.rig import held, hold, lifted


def place(one, region="eu"):
    return subjects.control_hold(region, one.scope, one.id)


async def test_a_hold_outlives_a_stream_that_was_lost_while_nobody_was_there(system):
    one = hold()
    before = system.boot("core-eu-1")
    await before.start()
    before.switch.issue(held(one))
    await until(lambda: before.switch.durable_at(one.id))
    await before.crash()
    system.streams["eu"].recreate()
    after = system.boot("core-eu-1")
    await after.start()
    assert after.revocations.killed("acme")
    await until(lambda: after.switch.durable_at(one.id))
    gateway = system.boot("gw-eu-1")
    await gateway.start()
    assert gateway.revocations.killed("acme")


async def test_a_lift_is_remembered_too(system):
    one = hold()
    before = system.boot("core-eu-1")
    await before.start()
    before.switch.issue(held(one))
    before.switch.issue(lifted(one))
    await until(lambda: before.switch.durable_at(one.id))
    await before.crash()
    system.streams["eu"].recreate()
    system.streams["eu"].store(place(one), held(one))  # somebody kept the older statement
    after = system.boot("core-eu-1")
    await after.start()
    await until(lambda: after.switch.durable_at(one.id))
    assert not after.revocations.killed("acme")


async def test_a_file_that_was_changed_is_not_believed_and_recorded(system):
    files = HoldFiles(system.path / "state" / "core-eu-1")
    files.recall()
    raw = held(hold())
    files.remember(b"x" * 16, raw[:-1] + bytes([raw[-1] ^ 1]))
    await files.close()
    boot = system.boot("core-eu-1")
    await boot.start()
    await settled()
    assert not boot.revocations.killed("acme")
    assert boot.count("trust.refused") == 1


async def test_who_recalls_writes_nothing_that_the_stream_has(system):
    one = hold()
    before = system.boot("core-eu-1")
    await before.start()
    before.switch.issue(held(one))
    await until(lambda: before.switch.durable_at(one.id))
    await before.crash()
    after = system.boot("core-eu-1")
    await after.start()
    await let_pass(1.0)
    assert after.switch.durable_at(one.id)
    assert not [subject for subject in after.log.puts if ".hold." in subject]


async def test_whoever_issues_a_hold_writes_it_without_standing_back(system):
    boot = system.boot("core-eu-1")
    await boot.start()
    one = hold()
    boot.switch.issue(held(one))
    await settled()
    assert boot.switch.durable_at(one.id)


async def test_a_hold_that_one_boot_was_never_delivered_is_read_again(system):
    one = hold()
    core, gateway = system.boot("core-eu-1"), system.boot("gw-eu-1")
    await core.start()
    await gateway.start()
    receive, missed = gateway.switch.receive, []

    def misses(entry):
        if entry.subject == place(one) and not missed:
            missed.append(entry)
        else:
            receive(entry)

    gateway.switch.receive = misses
    core.switch.issue(held(one))
    await until(lambda: missed)
    await let_pass(PATIENCE_S / 2)
    assert not gateway.revocations.killed("acme")
    await until(lambda: gateway.revocations.killed("acme"), 3 * PATIENCE_S)
    await until(gateway.live)


async def test_a_difference_that_reading_does_not_mend_is_read_for_once(system):
    core, gateway = system.boot("core-eu-1"), system.boot("gw-eu-1")
    await core.start()
    await gateway.start()
    gateway.switch.learning.learn(held(hold()))  # a broadcast that no Core heard
    eras = gateway.knowledge.era
    await let_pass(20 * PATIENCE_S)
    assert gateway.knowledge.era == eras + 1
    assert gateway.live()
