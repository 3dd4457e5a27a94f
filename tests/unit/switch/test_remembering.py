"""What a region forgot, its Cores remember; what one incarnation missed, it reads again."""

import errno

from kcm_killswitch.model.divergence import PATIENCE_S
from kcm_killswitch.replica.hold_store import FileHoldStore, write_hold
from kcm_schemas import subjects
from kcm_schemas.l1 import L1State

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.statements import LINK, at, held, hold, lifted, tenant


async def stored_before_a_crash(system):
    """A hold that an incarnation stored, which then crashed."""
    one = hold()
    before = system.incarnation("core-eu-1")
    await before.start()
    before.switch.issue(before.switch.verify(held(one)))
    await until(lambda: before.switch.durable_at(one.id))
    await before.crash()
    return one


async def test_a_hold_outlives_a_stream_that_was_lost_while_nobody_was_there(system):
    one = await stored_before_a_crash(system)
    system.streams["eu"].recreate()
    after = system.incarnation("core-eu-1")
    await after.start()
    assert after.revocations.killed("acme")
    await until(lambda: after.switch.durable_at(one.id))
    gateway = system.incarnation("gw-eu-1")
    await gateway.start()
    assert gateway.revocations.killed("acme")


async def test_a_lift_is_remembered_too(system):
    one = hold()
    before = system.incarnation("core-eu-1")
    await before.start()
    before.switch.issue(before.switch.verify(held(one)))
    before.switch.issue(before.switch.verify(lifted(one)))
    await until(lambda: before.switch.durable_at(one.id))
    await before.crash()
    system.streams["eu"].recreate()
    system.streams["eu"].store(at(one), held(one))  # somebody kept the older statement
    after = system.incarnation("core-eu-1")
    await after.start()
    await until(lambda: after.switch.durable_at(one.id))
    assert not after.revocations.killed("acme")


async def test_a_file_that_was_changed_is_not_believed_and_recorded(system):
    files = FileHoldStore(system.path / "state" / "core-eu-1")
    files.recall()
    raw = held(hold())
    files.remember(b"x" * 16, raw[:-1] + bytes([raw[-1] ^ 1]))
    await files.close()
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    await settled()
    assert not incarnation.revocations.killed("acme")
    assert incarnation.count("trust.refused") == 1


async def test_who_recalls_writes_nothing_that_the_stream_has(system):
    one = await stored_before_a_crash(system)
    after = system.incarnation("core-eu-1")
    await after.start()
    await let_pass(1.0)
    assert after.switch.durable_at(one.id)
    assert not [subject for subject in after.log.puts if ".hold." in subject]


async def test_whoever_issues_a_hold_writes_it_without_standing_back(system):
    incarnation = system.incarnation("core-eu-1")
    await incarnation.start()
    one = hold()
    incarnation.switch.issue(incarnation.switch.verify(held(one)))
    await settled()
    assert incarnation.switch.durable_at(one.id)


async def test_a_hold_that_one_incarnation_was_never_delivered_is_read_again(system):
    one = hold()
    core, gateway = system.incarnation("core-eu-1"), system.incarnation("gw-eu-1")
    await core.start()
    await gateway.start()
    receive, missed = gateway.switch.reader.receive, []

    def misses(entry):
        if entry.subject == at(one) and not missed:
            missed.append(entry)
        else:
            receive(entry)

    gateway.switch.reader.receive = misses
    core.switch.issue(core.switch.verify(held(one)))
    await until(lambda: missed)
    await let_pass(PATIENCE_S / 2)
    assert not gateway.revocations.killed("acme")
    await until(lambda: gateway.revocations.killed("acme"), 3 * PATIENCE_S)
    await until(gateway.live)


async def test_a_difference_that_reading_does_not_mend_is_read_for_once(system):
    core, gateway = system.incarnation("core-eu-1"), system.incarnation("gw-eu-1")
    await core.start()
    await gateway.start()
    gateway.switch.learn(held(hold()))  # a broadcast that no Core heard
    eras = gateway.freshness.era
    await let_pass(20 * PATIENCE_S)
    assert gateway.freshness.era == eras + 1
    assert gateway.live()


class FullDisk:
    """No room, until there is."""

    full = True

    def write(self, path, content):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_hold(path, content)


def words(incarnation, one):
    """What an incarnation's receipts of a hold say about its disk, in their order."""
    found = [
        incarnation.me.verifier.receipt(message.data)
        for message in incarnation.system.wire.sent
        if message.subject == subjects.receipt("eu", one.id)
    ]
    return [receipt.unkept for receipt in found if receipt.instance == incarnation.me.name]


async def test_a_core_says_that_it_purged_and_then_that_the_hold_is_on_its_disk(system):
    one = hold()
    core = system.incarnation("core-eu-1")
    await core.start()
    core.switch.issue(core.switch.verify(held(one)))
    await until(lambda: words(core, one)[-1:] == [""])
    assert set(words(core, one)) <= {"pending", ""}
    assert core.count("hold.unkept") == core.count("hold.kept") == 0


async def test_a_gateway_keeps_nothing_and_says_its_word_once(system):
    one = hold()
    gateway = system.incarnation("gw-eu-1")
    await gateway.start()
    gateway.switch.learn(held(one))
    await until(lambda: words(gateway, one))
    assert words(gateway, one) == [""]


async def test_a_core_whose_disk_is_full_says_so_and_says_when_it_has_the_hold(system):
    one, disk = hold(), FullDisk()
    store = FileHoldStore(system.path / "state" / "core-eu-1", write=disk.write)
    core = system.incarnation("core-eu-1", hold_store=store)
    await core.start()
    core.switch.issue(core.switch.verify(held(one)))
    assert core.revocations.killed("acme")
    await until(lambda: words(core, one)[-1:] == ["disk full"])
    await until(lambda: core.switch.durable_at(one.id))
    ((_, event),) = [each for each in core.events if each[0] == "hold.unkept"]
    assert (event["hold"], event["detail"]) == (one.id, "disk full (ENOSPC)")
    disk.full = False
    await until(lambda: words(core, one)[-1:] == [""])
    assert (core.count("hold.unkept"), core.count("hold.kept")) == (1, 1)
    await core.crash()
    # The broker's disk is lost; the Core's is not.
    system.streams["eu"].recreate()
    after = system.incarnation("core-eu-1")
    await after.start()
    assert after.revocations.killed("acme")


async def test_a_hold_of_a_key_is_broadcast_again_while_that_cannot_be_sent(system):
    """A connection that is away for a moment must not leave other regions to their pulls."""
    core, other = system.core("core-eu-1"), system.incarnation("gw-us-1")
    await core.start()
    await other.start()
    core.bus.connected = False
    for one in (core, other):
        one.learn(LINK, tenant(regions=["eu", "us"]))
    core.holds.place("acme-root", L1State.DISABLED)
    await let_pass(2.0)
    assert not other.revocations.killed("acme")
    core.bus.connected = True
    await until(lambda: other.revocations.killed("acme"))
