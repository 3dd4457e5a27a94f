"""`kcm audit tail`: events verified and shown, and followed."""

import asyncio
import json

import pytest
from kcm.exit_codes import Exit
from kcm_schemas import limits
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.audit import GENESIS, AuditBatch, AuditEvent
from kcm_schemas.auditor import TailEntry, TailPage, TailQuery
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.fakes.client import NOW_MS, FakeSystem
from tests.unit.operator_rig import Desk


class Journal:
    """An Auditor's journal in memory, in pages."""

    def __init__(self, system: FakeSystem) -> None:
        self.system = system
        self.entries: list[TailEntry] = []
        self.away = False
        system.everywhere("auditor", "tail", self._tail)

    def add(self, *types: str, signer: str = "core-eu", actor: str | None = None) -> None:
        events = [
            AuditEvent(
                type=name,
                time_ms=NOW_MS,
                actor=actor,
                tenant="acme",
                service="crm",
                target="",
                hold=None,
                code=Code.OK,
                count=3,
                failed=1,
                detail="\x1b[31m",
            )
            for name in types
        ]
        batch = AuditBatch(
            emitter="core-eu",
            incarnation=bytes(limits.ID_SIZE),
            role=Role.CORE,
            region="eu",
            first=1,
            previous=GENESIS,
            events=[encode(event) for event in events],
        )
        signed = self.system.identities[signer].sign(Kind.AUDIT, batch)
        named = [one.model_copy(update={"signer": "core-eu"}) for one in signed.signatures]
        self._entry(encode(signed.model_copy(update={"signatures": named})), "")

    def incident(self, what: str) -> None:
        self._entry(b"", what)

    def _entry(self, statement: bytes, incident: str) -> None:
        self.entries.append(
            TailEntry(
                seq=len(self.entries) + 1,
                time_ms=NOW_MS,
                region="eu",
                statement=statement,
                incident=incident,
                detail="",
            )
        )

    def _tail(self, request: AdminRequest, operator: str) -> Message:
        if self.away:
            raise KcmError(Code.UNAVAILABLE, "it is restarted")
        query = decode(TailQuery, request.payload)
        before = query.before or len(self.entries) + 1
        found = [entry for entry in self.entries if entry.seq < before][-query.limit :]
        return TailPage(auditor="auditor-eu", oldest=1, entries=found)


def test_the_last_events_are_verified_and_shown(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap", "keys.unwrap")
    journal.incident("gap")
    journal.add("keys.wrap", signer="core-us")
    journal.add("instance.alive")
    journal.add("audit.read", actor="alice")
    journal.add("audit.read", actor="bob")
    code, out, _ = desk.run("audit", "tail", "-o", "json")
    assert code == Exit.OK
    assert [line["event"] for line in json.loads(out)] == [
        "keys.wrap",
        "keys.unwrap",
        "incident: gap",
        "not trusted",
        "audit.read",
    ]
    assert len(json.loads(desk.run("audit", "tail", "--all")[1])) == 7
    assert len(json.loads(desk.run("audit", "tail", "-n", "2")[1])) == 2
    code, out, _ = desk.run("audit", "tail", "-o", "table")
    assert "acme/crm" in out
    assert "\x1b" not in out


def test_your_own_looks_are_left_out_whatever_they_look_at(desk: Desk) -> None:
    journal = Journal(desk.system)
    looks = (
        "admin.tenant-list", "admin.tenant-find", "admin.tenant-show", "admin.link-list",
        "admin.service-list", "admin.hold-status", "admin.hold-show", "admin.hold-list",
        "admin.hold-preview", "admin.hold-export", "admin.roster-show", "admin.roster-signed",
        "admin.roster-listed", "admin.key-status", "audit.read",
    )  # fmt: skip
    acts = ("admin.hold-put", "admin.tenant-put", "admin.roster-put", "admin.roster-endorsements")
    journal.add(*looks, *acts, actor="alice")
    journal.add("admin.hold-status", actor="bob")
    told = json.loads(desk.run("audit", "tail", "-o", "json")[1])
    assert [(one["event"], one["actor"]) for one in told] == [
        *((name, "alice") for name in acts), ("admin.hold-status", "bob"),
    ]  # fmt: skip
    told = json.loads(desk.run("audit", "tail", "--all", "-o", "json")[1])
    assert len(told) == len(looks) + len(acts) + 1


def test_who_caused_an_event_is_shown_and_that_nobody_did(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    journal.add("hold.placed", actor="bob")
    journal.incident("gap")
    lines = desk.run("audit", "tail", "-o", "table")[1].splitlines()
    assert [line.split()[2:5] for line in lines] == [
        ["core-eu", "-", "keys.wrap"], ["core-eu", "bob", "hold.placed"],
        ["auditor", "-", "incident:"],
    ]  # fmt: skip
    assert lines[2].split()[5:8] == ["gap", "-", "-"]
    told = json.loads(desk.run("audit", "tail", "-o", "json")[1])
    assert [one["actor"] for one in told] == [None, "bob", None]


def test_a_long_journal_is_read_in_pages(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    for _ in range(600):
        journal.add("instance.alive")
    assert len(json.loads(desk.run("audit", "tail", "-n", "5")[1])) == 1
    assert len(desk.system.cores["eu"].requests) == 3


def test_following_shows_what_is_new_until_interrupted(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    naps = 0

    async def nap(seconds: float) -> None:
        nonlocal naps
        naps += 1
        await asyncio.sleep(0)
        if naps == 2:
            for _ in range(300):
                journal.add("keys.unwrap")
        if naps == 4:
            raise KeyboardInterrupt

    desk.system.clock.sleep = nap  # type: ignore[method-assign]
    code, out, _ = desk.run("audit", "tail", "-f", "-o", "json")
    assert code == Exit.INTERRUPTED
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events == ["keys.wrap"] + ["keys.unwrap"] * 300


def follow_through(desk: Desk, journal: Journal, *steps: str) -> None:
    """What passes while a journal is followed: one step for each time that nobody answers."""
    left = list(steps)

    async def nap(seconds: float) -> None:
        await asyncio.sleep(0)
        if journal.away and len(desk.system.cores["eu"].requests) % 5:
            return  # asked again a few times
        if not left:
            raise KeyboardInterrupt
        match left.pop(0):
            case "away":
                journal.away = True
            case "back":
                journal.away = False
            case "another":
                journal.entries.clear()
            case event:
                journal.add(event)

    desk.system.clock.sleep = nap  # type: ignore[method-assign]


def test_following_goes_on_when_the_auditor_was_away(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    steps = (
        "away",
        "keys.unwrap",
        "away",
        "back",
        "data.encrypt",
        "away",
        "away",
        "back",
        "roster.taken",
    )
    follow_through(desk, journal, *steps)
    code, out, err = desk.run("audit", "tail", "-f", "-o", "json")
    assert code == Exit.INTERRUPTED
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events == ["keys.wrap", "keys.unwrap", "data.encrypt", "roster.taken"], "each once"
    assert "does not reply: it is restarted; resuming after entry" in err
    assert err.count("does not reply") == err.count("the Auditor replies again"), "each once"


def test_following_goes_on_behind_an_entry(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    journal.add("keys.unwrap")
    follow_through(desk, journal, "data.encrypt")
    code, out, _ = desk.run("audit", "tail", "-f", "--after", "1", "-o", "json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines] == ["keys.unwrap", "data.encrypt"]
    assert lines[0]["time_utc"]
    code, _, err = desk.run("audit", "tail", "--after", "1")
    assert code == Exit.USAGE
    assert "--after goes with -f" in err


def test_following_another_journal_says_so(desk: Desk) -> None:
    journal = Journal(desk.system)
    for _ in range(3):
        journal.add("keys.wrap")
    follow_through(desk, journal, "another", "keys.unwrap")
    _, out, err = desk.run("audit", "tail", "-f", "-o", "json")
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "keys.unwrap"
    assert "it is another one, or it was truncated" in err
