"""Log lines of the kill switch have the ids that an operator searches for, and the reason."""

import errno
import logging

import pytest
from kcm_killswitch.coordinator.region_knowledge import FIRST, NOTHING
from kcm_killswitch.coordinator.result_watch import LOOKS_S, ResultLooks
from kcm_killswitch.model.lift_pages import Place
from kcm_killswitch.replica.disk_failure import failure
from kcm_killswitch.replica.hold_archive import HoldArchive
from kcm_killswitch.replica.hold_store import FileHoldStore
from kcm_killswitch.replica.log_fields import of_hold, of_object, of_page
from kcm_killswitch.replica.purge import purge_each
from kcm_runtime.logs import LineFormatter

from tests.fakes.virtual import until
from tests.unit.switch.statements import LINK, held, hold


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [LineFormatter("text").format(record) for record in caplog.records]


def only(caplog: pytest.LogCaptureFixture, text: str) -> str:
    (line,) = [line for line in lines(caplog) if text in line]
    return line


@pytest.mark.parametrize(
    ("scope", "target"), [("tenant", "acme"), ("link", LINK.link), ("region", "eu")]
)
async def test_a_hold_is_named_by_its_id_and_its_target(system, scope, target):
    core = system.incarnation("core-eu-1")
    one = hold(scope=scope, target=target)
    assert of_hold(core.switch.verify(held(one))) == {"hold": one.id, scope: target}


def test_a_record_of_the_registry_is_named_by_its_key():
    assert of_object(("tenant", "acme")) == {"tenant": "acme"}
    assert of_object(("link", "acme-root")) == {"link": "acme-root"}
    assert of_object(("service", "acme", "billing")) == {"tenant": "acme", "service": "billing"}


def test_a_lift_page_is_named_by_its_signer_and_origin():
    assert of_page(Place("l1", "eu", "core-eu-1", 7)) == {"signer": "core-eu-1", "region": "eu"}


async def test_a_hold_that_is_not_on_disk_is_named_and_again_when_it_is(system, caplog):
    faults = [OSError(errno.ENOSPC, "a foreign text")]

    def write(_path, _statement):
        if faults:
            raise faults.pop()

    files = FileHoldStore(system.path / "holds", write=write)
    files.recall()
    one = hold()
    files.remember(one.id, held(one))
    await until(lambda: files.kept(one.id, held(one)))
    await files.close()
    line = only(caplog, "is not on disk yet, the write is repeated: disk full")
    assert f" hold={one.id.hex()} " in line
    assert line.endswith("code=ENOSPC")
    assert f" hold={one.id.hex()} " in only(caplog, "a hold whose write failed is on disk now")
    assert "a foreign text" not in caplog.text


def test_an_unexpected_error_of_the_disk_names_the_hold_and_not_its_text(caplog):
    def work():
        raise ValueError("a secret")

    assert failure(work, hold=b"\x01" * 16) is not None
    assert f"hold={'01' * 16}" in only(caplog, "an unexpected error of a write to the disk")
    assert "a secret" not in caplog.text


def test_a_damaged_archive_is_named_by_the_databases_error(tmp_path):
    (tmp_path / "lifted.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match=r"^the archive of lifted holds: SQLITE_NOTADB$"):
        HoldArchive(tmp_path).get([b"\x01" * 16])


def test_a_purge_that_fails_names_the_tenant_and_not_the_errors_text(caplog):
    def purge(_tenant):
        raise RuntimeError("a secret")

    assert purge_each(purge, ["acme"]) == (0, ("acme",))
    assert only(caplog, "could not be purged").endswith(" tenant=acme")
    assert "a secret" not in caplog.text


async def test_a_receipt_that_is_not_sent_names_the_hold(system, caplog):
    gateway = system.incarnation("gw-eu-1")
    await gateway.start()
    one = hold()
    gateway.bus.connected = False
    gateway.switch.learn(held(one))
    await until(lambda: "a receipt could not be sent" in caplog.text)
    line = only(caplog, "a receipt could not be sent")
    assert line.endswith(f" hold={one.id.hex()} instance=gw-eu-1 code=unavailable")


async def test_a_lease_entry_that_is_not_acknowledged_names_the_instance(system, caplog):
    gateway = system.incarnation("gw-eu-1")
    await gateway.start()
    gateway.log.connected = False
    await until(lambda: "a lease entry was not acknowledged" in caplog.text, 60)
    assert lines(caplog)[0].endswith(" region=eu instance=gw-eu-1")


async def test_a_stream_that_is_read_again_is_named(system, caplog):
    gateway = system.incarnation("gw-eu-1")
    await gateway.start()
    with caplog.at_level(logging.ERROR):
        gateway.switch.reader.leases.lost("a test")
    line = only(caplog, "until the region's stream was read again from its start: a test")
    assert line.endswith(" region=eu stream=KCM_CONTROL")


async def test_a_region_without_a_peer_lease_has_a_line_of_its_own(system, caplog):
    core = system.incarnation("core-eu-1")
    await core.start()
    await core.switch.heard_regions(1.0)
    silent = [line for line in lines(caplog) if "no peer lease on another region yet" in line]
    assert [line.rsplit(" ", 1)[1] for line in silent] == ["region=ap", "region=us"]


@pytest.mark.parametrize(
    ("scope", "target"), [("tenant", "acme"), ("link", LINK.link), ("region", "eu")]
)
async def test_a_hold_that_is_not_broadcast_is_named(system, caplog, scope, target):
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    core.bus.connected = False
    one = hold(scope=scope, target=target)
    await core.kills.place(held(one), core.clock.unix_ms() + 5_000)
    line = only(caplog, "a hold or lift could not be broadcast")
    assert line.endswith(f" hold={one.id.hex()} {scope}={target} code=unavailable")
    assert core.switch.durable_at(one.id)  # as the line says: the stream has it


async def test_an_exchange_that_fails_names_the_other_region(system, caplog):
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    assert await core.regions.pull("us", FIRST, FIRST, NOTHING) is None
    one = hold()
    assert await core.regions.pull("us", one.id, FIRST, NOTHING) is None
    general, of_a_hold = [line for line in lines(caplog) if "no valid answer to a pull" in line]
    assert general.endswith(" region=us")
    assert of_a_hold.endswith(f" region=us hold={one.id.hex()}")


async def test_a_check_of_a_kill_that_fails_says_whether_another_one_follows(caplog):
    async def see(_hold_id):
        raise RuntimeError("a secret")

    looks = ResultLooks(see)
    looks.look(b"\x01" * 16, "us")
    await until(lambda: not looks.of("us"), 60)
    failed = [line for line in lines(caplog) if "could not be checked" in line]
    assert [("it is checked again" in line, "the last check" in line) for line in failed] == [
        *[(True, False)] * (len(LOOKS_S) - 1),
        (False, True),
    ]
    assert all(line.endswith(f" hold={'01' * 16} region=us") for line in failed)
    assert "a secret" not in caplog.text
