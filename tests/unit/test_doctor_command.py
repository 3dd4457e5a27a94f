"""``kcm doctor``: what it shows, and its exit code."""

import json
import re

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_deployment.doctor import examination as doctor
from kcm_deployment.doctor.finding import Subject, bad, good, unknown, warn
from kcm_deployment.doctor.shown import document, lines
from kcm_deployment.doctor.wire import WireFacts

from tests.fakes.client import FakeSystem
from tests.unit.test_doctor_machine import GOOD

FOUND = [
    Subject("machine", (good("swap", "none"), warn("clock", "late\x1b[1m", "set it"))),
    Subject("context", ()),
    Subject("eu", (bad("tls", "no TLS", "add it"), unknown("trust", "not seen", "look"))),
]


def test_each_finding_is_a_line_and_each_that_is_not_ok_has_a_fix():
    assert lines(FOUND) == (
        "machine\n"
        "  ok       swap: none\n"
        "  warn     clock: late\N{REPLACEMENT CHARACTER}[1m\n"
        "           fix: set it\n"
        "eu\n"
        "  fail     tls: no TLS\n"
        "           fix: add it\n"
        "  unknown  trust: not seen\n"
        "           fix: look\n"
    )


def test_a_program_gets_the_same():
    found = document(FOUND)
    assert found["ok"] is False
    assert [one["state"] for one in found["findings"]] == ["ok", "warn", "fail", "unknown"]
    assert found["findings"][2] == {
        "subject": "eu", "check": "tls", "state": "fail", "text": "no TLS", "fix": "add it",
    }  # fmt: skip
    assert document(FOUND[:2])["ok"] is True


class Desk:
    def __init__(self, capsys):
        self._capsys = capsys

    def run(self, *arguments):
        self._capsys.readouterr()
        code = run(["doctor", *arguments])
        return code, *self._capsys.readouterr()


@pytest.fixture
def desk(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("KCM_CONTEXT", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("kcm_deployment.doctor.machine_facts.read_machine", lambda: GOOD)

    async def nothing(_place):
        return WireFacts(unreached="Connection refused")

    monkeypatch.setattr(doctor, "look", nothing)
    return Desk(capsys)


def test_a_good_machine_without_a_context_passes(desk):
    code, out, err = desk.run("-o", "table")
    assert code == Exit.OK
    assert out.startswith("machine\n  ok       memlock: ")
    assert "there is no context file" in out
    assert not err


def test_a_failure_is_exit_code_7_with_a_hint(desk, tmp_path):
    system = FakeSystem(tmp_path)
    arguments = ("--context", str(system.context_file), "--no-machine")
    code, out, err = desk.run(*arguments, "-o", "json")
    assert code == Exit.CHECK_FAILED
    found = json.loads(out)
    assert found["ok"] is False
    assert "machine" not in {one["subject"] for one in found["findings"]}
    assert [one for one in found["findings"] if one["check"] == "reach"]
    assert "fix" in json.loads(err)["hint"]
    code, out, err = desk.run(*arguments, "-o", "table")
    assert code == Exit.CHECK_FAILED
    assert "  fail     reach: the broker cannot be reached: Connection refused\n" in out
    assert "SEED" not in out
    assert not re.search(r"\b(SU|eyJ)", out)


def test_a_fault_of_one_check_leaves_the_others(desk, monkeypatch, tmp_path):
    async def fault(_place):
        raise ZeroDivisionError("SECRET")

    monkeypatch.setattr(doctor, "look", fault)
    system = FakeSystem(tmp_path)
    code, out, _ = desk.run("--context", str(system.context_file), "-o", "json")
    findings = json.loads(out)["findings"]
    faults = [one for one in findings if "ZeroDivisionError" in one["text"]]
    assert {one["state"] for one in faults} == {"unknown"}
    assert len(faults) == 4
    assert {"memlock", "roster-trust"} <= {one["check"] for one in findings}
    assert "SECRET" not in out
    assert code == Exit.CHECK_FAILED  # the password files of this system are open to others


def test_a_check_that_does_not_end_is_unknown(desk, monkeypatch, tmp_path):
    async def endless(_place):
        await doctor.asyncio.Event().wait()

    monkeypatch.setattr(doctor, "look", endless)
    monkeypatch.setattr(doctor, "ALL_S", 0.01)
    _, out, _ = desk.run("--context", str(FakeSystem(tmp_path).context_file), "-o", "json")
    found = [one for one in json.loads(out)["findings"] if one["check"] == "reach"]
    assert [one["state"] for one in found] == ["unknown"] * 4


def test_a_file_that_is_no_configuration_is_wrong_usage(desk, tmp_path):
    code, out, err = desk.run("--config", str(tmp_path / "none.toml"), "-o", "json")
    assert (code, out) == (Exit.USAGE, "")
    assert str(tmp_path / "none.toml") in json.loads(err)["detail"]


def test_with_a_configuration_the_context_is_left_out(desk, monkeypatch, tmp_path):
    system = FakeSystem(tmp_path)
    monkeypatch.setenv("KCM_CONTEXT", str(system.context_file))
    path = tmp_path / "core-1.toml"
    path.write_text('instance = "core-1"\n')
    _, out, _ = desk.run("--no-machine", "--config", str(path), "-o", "json")
    assert {one["subject"] for one in json.loads(out)["findings"]} == {"core-1"}
