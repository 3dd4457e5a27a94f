"""The judge of the journal notices what is lost, unsaid, or said wrongly."""

import pytest
from kcm_auditor.journal.format import Batch, Incident
from kcm_auditor.journal.writer import Journal as Written
from kcm_auditor.positions import Book
from kcm_schemas.roster import Role

from tests.audit_rig import Emitting, FakeClock, System, event
from tests.chaos.journal import Hole, Journal

INCARNATION = b"b" * 16


@pytest.fixture
def system(tmp_path):
    made = System(tmp_path)
    made.add("gw", Role.GATEWAY)
    made.add("auditor", Role.AUDITOR)
    return made


@pytest.fixture
def journal(tmp_path, system):
    config = tmp_path / "auditor.toml"
    config.write_text(
        "\n".join(
            [
                'instance = "auditor"',
                'region = "eu"',
                "development = true",
                f'root_public = "{system.identity("root").public.hex()}"',
                f'roster = "{system.write_roster()}"',
                f'identity = "{system.key_path("auditor")}"',
                f'state_dir = "{tmp_path / "state"}"',
                f'ready_file = "{tmp_path / "ready"}"',
                "[region_bus]",
                'url = "nats://127.0.0.1:1"',
                'user = "u"',
                f'password_file = "{tmp_path / "password"}"',
                "[auditor]",
                f'journal = "{tmp_path / "journal"}"',
            ]
        )
    )
    return Journal(tmp_path / "journal", config)


async def write(tmp_path, *said):
    book = Book("auditor")
    journal = Written(tmp_path / "journal", FakeClock(), book.positions)
    journal.open(lambda entry: book.restore(entry.content))
    for content in said:
        book.restore(content)
        await journal.submit([content])
    await journal.close()


def batches(system, count):
    gw = Emitting(system, "gw")
    return [
        Batch(region="eu", position=n + 1, statement=gw.signed([event(time_ms=n)]))
        for n in range(count)
    ]


def gap(first, last):
    return Incident(
        incident="gap", region="eu", emitter="gw", incarnation=INCARNATION, first=first, last=last
    )


async def test_what_is_whole_or_said_to_be_missing_is_right(tmp_path, system, journal):
    one, _, three = batches(system, 3)
    await write(tmp_path, one)
    journal.note()
    await write(tmp_path, gap(2, 2), three)
    assert journal.wrong([]) == []
    assert journal.holes == [Hole("gw", INCARNATION.hex(), 2, 2)]
    assert journal.unheard(["gw"], 2) == []
    assert journal.unheard(["gw", "core"], 3) == ["gw", "core"]


async def test_a_hole_that_nobody_names_is_wrong(tmp_path, system, journal):
    one, _, three = batches(system, 3)
    await write(tmp_path, one, three)
    unsaid, verified = journal.wrong([])
    assert "no incident names Hole" in unsaid
    assert verified.startswith("kcm audit verify: ")


async def test_what_was_in_the_journal_and_is_not_any_more_is_wrong(tmp_path, system, journal):
    await write(tmp_path, *batches(system, 3))
    journal.note()
    (path,) = (tmp_path / "journal").glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert journal.wrong([]) == [f"the journal lost what was in {path.name}"]


async def test_a_stream_that_was_made_anew_has_to_be_said_to_be(tmp_path, system, journal):
    await write(tmp_path, *batches(system, 1))
    assert "was made anew" in journal.wrong(["eu"])[0]
    await write(tmp_path, Incident(incident="stream-replaced", region="eu", first=1, last=1))
    assert journal.wrong(["eu"]) == []


async def test_a_line_that_is_being_written_is_left_out(tmp_path, system, journal):
    await write(tmp_path, *batches(system, 2))
    (path,) = (tmp_path / "journal").glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"hash":"')
    assert journal.wrong([]) == []
