"""`kcm roster show` and `kcm roster put`: which regions have a roster."""

import asyncio
import json
from pathlib import Path

import pytest
from kcm.exit_codes import Exit
from kcm.ops.roster_changes import each, lists_directory, retire
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Instance, Role
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements

from tests.fakes.client import REGIONS
from tests.unit.roster_rig import Desk


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_where_a_roster_was_brought_is_the_result(desk: Desk) -> None:
    path = str(desk.system.directory / "roster")
    code, said, err = desk.run("roster", "put", path, key=False)
    assert (code, json.loads(err)) == (Exit.OK, {"changed": False})
    row = {"result": "stored", "detail": "", "change": "unchanged"}
    assert said == {"version": 1, "regions": [{"region": name, **row} for name in REGIONS]}
    desk.cores.refuse = {"us"}
    code, said, err = desk.run("roster", "put", path, key=False)
    assert [one["result"] for one in said["regions"]] == ["stored", "forbidden"]
    assert said["regions"][1]["detail"] == "not the next one"
    code, said, err = desk.run("roster", "retire", "bob", "--yes")
    assert code == Exit.PARTIAL
    assert [one["result"] for one in said["regions"]] == ["stored", "forbidden"]
    assert "not the next one" in err


LACKS = "us: on the roster, not in this context"


def test_a_region_that_the_context_lacks_has_no_roster_brought(desk: Desk, tmp_path: Path) -> None:
    desk.system.forget("us")
    file = tmp_path / "next"
    file.write_bytes((desk.system.directory / "roster").read_bytes())
    code, said, err = desk.run("roster", "put", str(file), key=False)
    assert code == Exit.PARTIAL
    assert [(one["region"], one["result"]) for one in said["regions"]] == [
        ("eu", "stored"), ("us", "not_in_context"),
    ]  # fmt: skip
    assert said["regions"][1]["detail"] == "on the roster, not in this context"
    assert json.loads(err.splitlines()[0])["error"] == "on the roster, not in this context"
    code, said, err = desk.run("roster", "show", key=False)
    assert code == Exit.NOT_COMPLETE
    assert said["regions"] == {"eu": "has it", "us": "on the roster, not in this context"}
    desk.system.cores["eu"].down = True
    assert desk.run("roster", "show", key=False)[0] == Exit.UNAVAILABLE


def test_a_region_that_the_context_lacks_is_told_to_people(desk: Desk, tmp_path: Path) -> None:
    desk.system.forget("us")
    file = str(desk.system.directory / "roster")
    assert LACKS in desk.run("roster", "put", file, key=False, form="table")[2]
    assert LACKS in desk.run("roster", "show", key=False, form="table")[2]


def test_a_region_that_does_not_take_it_is_said(desk: Desk) -> None:
    desk.cores.refuse = {"us"}
    code, _, err = desk.run("roster", "retire", "bob", "--yes")
    assert code == Exit.PARTIAL
    assert "not the next one" in err
    assert desk.kept.version == 2
    desk.cores.refuse = set(REGIONS)
    code, _, err = desk.run("roster", "put", str(desk.system.directory / "roster"), key=False)
    assert code == Exit.REFUSED
    refused, step = map(json.loads, err.splitlines())
    assert refused["regions"] == list(REGIONS)  # one line: both say the same
    assert "prepare the next one" in step["hint"]


def test_show_says_who_has_the_highest_one(desk: Desk) -> None:
    code, said, _ = desk.run("roster", "show", key=False)
    assert code == Exit.OK
    newer = retire(desk.system.roster, "bob", Endorsements(), 7)
    desk.cores.roster["us"] = desk.system.root.sign(Kind.ROSTER, newer)
    code, said, err = desk.run("roster", "show", key=False)
    assert code == Exit.NOT_COMPLETE
    assert said["version"] == 2
    assert said["regions"] == {"eu": "has an older one", "us": "has it"}
    assert "`kcm roster put FILE`" in json.loads(err)["hint"]
    states = {row["name"]: row["state"] for row in said["entries"]}
    assert (states["alice"], states["bob"]) == ("acts", "retired")


def test_show_names_the_application_of_an_embedded_gateway(desk: Desk) -> None:
    inside = Instance(
        instance="shop-eu-1", role=Role.GATEWAY, region="eu", public_key=bytes(31) + b"\3",
        grants=[], application="shop",
    )  # fmt: skip
    known = desk.system.roster
    newer = known.model_copy(update={"version": 2, "instances": [*known.instances, inside]})
    for region in REGIONS:
        desk.cores.roster[region] = desk.system.root.sign(Kind.ROSTER, newer)
    _, said, _ = desk.run("roster", "show", key=False)
    what = {row["name"]: row["what"] for row in said["entries"]}
    assert what["shop-eu-1"] == "gateway inside of shop"


def test_show_of_no_region_that_answers_is_unavailable(desk: Desk) -> None:
    def silent(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNAVAILABLE)

    desk.system.everywhere("roster", "show", silent)
    code, said, _ = desk.run("roster", "show", key=False)
    assert code == Exit.UNAVAILABLE
    assert set(said["regions"].values()) == {"unavailable"}


def test_a_roster_of_nobody_is_not_brought_anywhere(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "forged"
    path.write_bytes(encode(desk.system.alice.sign(Kind.ROSTER, desk.system.roster)))
    code, _, err = desk.run("roster", "put", str(path), key=False)
    assert code == Exit.CHECK_FAILED
    assert "nothing was sent; name a roster of system acme" in json.loads(err)["hint"]
    assert not desk.cores.put
    assert not lists_directory(path).exists()


@pytest.mark.parametrize("arguments", [("retire", "bob", "--dry-run"), ("show",)])
def test_a_region_that_keeps_one_waiting_is_named(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setattr("kcm.cli.hold_progress.TELL_S", 0)
    told = ""
    us = desk.system.cores["us"]
    request = us.request

    async def slow(subject: str, body: bytes, timeout_s: float) -> bytes:
        nonlocal told
        while not told:
            await asyncio.sleep(0)
            told += capsys.readouterr().err
        return await request(subject, body, timeout_s)

    monkeypatch.setattr(us, "request", slow)
    assert desk.run("roster", *arguments, key=False)[0] == Exit.OK
    first = json.loads(told.splitlines()[0])
    assert first["asking"] == "the roster"
    assert "us" in first["silent"]


async def test_regions_are_asked_at_once() -> None:
    """A region that does not answer keeps nobody from asking the next one."""
    reached: set[str] = set()
    everybody = asyncio.Event()

    async def ask(region: str) -> str:
        reached.add(region)
        if len(reached) == len(REGIONS):
            everybody.set()
        await everybody.wait()
        return region

    answered: list[str] = []
    assert await each(REGIONS, ask, answered.append) == dict(zip(REGIONS, REGIONS, strict=True))
    assert sorted(answered) == sorted(REGIONS)
