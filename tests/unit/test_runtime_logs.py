"""Lines of the log: named values in text and JSON, one line each, and no text of an exception."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kcm_runtime import logs, process
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.config import ConfigError, InstanceConfig, LogSection
from kcm_runtime.logs import Fields, LineFormatter, fields
from kcm_trust.verify import Untrusted
from pydantic import ValidationError

SECRET = "text-of-a-customer"


def record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("kcm.test").makeRecord(
        "kcm.test", logging.WARNING, "file", 1, message, args, None, extra=extra
    )


def test_text_ends_with_the_named_values() -> None:
    line = LineFormatter("text").format(
        record("not sent: %s", "busy", **fields(hold=b"\x01\xab", link="acme-root", count=2))
    )
    time, rest = line.split(" ", 1)
    assert datetime.fromisoformat(time).utcoffset() is not None
    assert rest == "WARNING not sent: busy hold=01ab link=acme-root count=2"


def test_json_has_the_named_values_and_those_of_the_process() -> None:
    form = LineFormatter("json", Fields(instance="core-eu-1", region="eu"))
    said = json.loads(form.format(record("not sent", **fields(hold=b"\x01\xab", count=2))))
    assert datetime.fromisoformat(said.pop("time")).utcoffset() is not None
    assert said == {
        "level": "WARNING", "logger": "kcm.test", "message": "not sent",
        "instance": "core-eu-1", "region": "eu", "fields": {"hold": "01ab", "count": 2},
    }  # fmt: skip
    other = json.loads(form.format(record("a pull", **fields(region="us", instance="gw-us"))))
    assert (other["region"], other["instance"]) == ("eu", "core-eu-1")
    assert other["fields"] == {"region": "us", "instance": "gw-us"}


def test_a_value_with_spaces_does_not_look_like_several() -> None:
    line = LineFormatter("text").format(record("full", **fields(path='/x tenant=acme "y"')))
    assert line.endswith(r'full path="/x tenant=acme \"y\""')


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_is_bounded(form: Any) -> None:
    assert len(LineFormatter(form).format(record("a" * 10**6, **fields(path="b" * 10**6)))) < 9000


def test_what_is_absent_is_not_written() -> None:
    line = LineFormatter("text").format(record("rejected", **fields(tenant=None, region="eu")))
    assert line.endswith("WARNING rejected region=eu")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_record_is_one_line_that_steers_no_terminal(form: Any) -> None:
    line = LineFormatter(form).format(record("a\nb \x1b[31m", **fields(path="/x\ny")))
    assert line.isprintable()


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_has_its_class_and_frames_and_no_text(form: Any) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        one = record("a library failed")
        one.exc_info = sys.exc_info()
    line = LineFormatter(form).format(one)
    assert "a library failed: ValueError at test_an_exception" in line
    assert SECRET not in line
    assert "\n" not in line


def test_lines_of_the_process_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", Fields(instance="gw-eu"))
    logging.getLogger("kcm_gateway").info("serves")
    logging.getLogger("kcm_gateway").debug("not this")
    said = json.loads(capsys.readouterr().err)
    assert (said["message"], said["instance"]) == ("serves", "gw-eu")


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_configuration_selects_the_format(
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "instance.toml"
    path.write_text(f"""
        instance = "gw-eu"
        region = "eu"
        root_public = "{"0" * 64}"
        roster = "r"
        identity = "i"
        state_dir = "s"
        region_bus = {{ url = "tls://127.0.0.1:1", credentials = "p" }}
        log.format = "{form}"
    """)
    monkeypatch.setattr(sys, "argv", ["service", "--config", str(path)])
    monkeypatch.setattr(process, "protect", lambda: None)

    def build(_config: object, _clock: object) -> Any:
        raise ConfigError("the roster has another public key")

    assert process.run("service", InstanceConfig, build) == process.EXIT_CONFIG
    (line,) = capsys.readouterr().err.splitlines()
    if form == "json":
        said = json.loads(line)
        assert (said["instance"], said["region"], said["level"]) == ("gw-eu", "eu", "ERROR")
        assert said["message"] == "the roster has another public key"
    else:
        assert line.endswith(" ERROR the roster has another public key")


def test_another_format_is_refused() -> None:
    with pytest.raises(ValidationError):
        LogSection.model_validate({"format": "xml"})


async def test_a_rejection_names_the_requester_and_the_tenant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = RejectionLog("data", lambda *_, **__: None)
    refusals.record(Untrusted("no grant"), actor="gw-eu", tenant="acme")
    refusals.close()
    line = LineFormatter("text").format(caplog.records[0])
    assert line.endswith("rejected (1 times): data: no grant count=1 actor=gw-eu tenant=acme")
