"""What is remembered about the processes, and how little is believed of it."""

import json
import sys
from pathlib import Path

import pytest
from kcm_devsystem import state
from kcm_devsystem.errors import DevError, OtherVersionError
from kcm_devsystem.files import password
from kcm_devsystem.processes import End, Process, spawn
from kcm_devsystem.state import Entry, Kind, State
from kcm_runtime.files.private_files import write_private


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def entry(name: str = "eu-de", kind: Kind = Kind.BROKER, **fields) -> Entry:
    process = Process(name, fields.pop("pid", 4_000_000), 77, "boot", Path("/log") / name)
    return Entry(process, kind, fields.pop("role", "region"), **fields)


def test_it_comes_back_as_it_was(tmp_path):
    kept = State(
        (
            entry("backbone", role="backbone", address="nats-leaf://127.0.0.1:1"),
            entry("eu-de", region="eu-de", address="nats://127.0.0.1:2"),
            entry("core-1", Kind.INSTANCE, role="core", region="eu-de", instance="core-1"),
        )
    )
    state.save(tmp_path, kept)
    assert state.load(tmp_path) == kept
    assert (tmp_path / state.FILE).stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == [state.FILE]


def test_no_file_is_no_system(tmp_path):
    assert state.load(tmp_path) is None


def test_a_process_that_is_started_again_replaces_its_entry():
    first, second = entry(pid=11), entry(pid=12)
    assert State().with_entry(first).with_entry(second).entries == (second,)
    assert State((first,)).without("eu-de") == State()
    assert State((first,)).entry("eu-de") is first
    with pytest.raises(DevError):
        State((first,)).entry("us-east")


def broken(**changes) -> dict:
    document = {
        "version": state.VERSION,
        "processes": [
            {
                "process": {
                    "name": "n",
                    "pid": 2,
                    "start_time": 3,
                    "boot_id": "b",
                    "log_path": "/l",
                },
                "kind": "broker",
                "role": "region",
                "region": "",
                "instance": "",
                "address": "",
            }
        ],
    }
    where = document["processes"][0]
    for key, value in changes.items():
        (where["process"] if key in where["process"] else where)[key] = value
    return document


def test_the_unbroken_document_is_read(tmp_path):
    (tmp_path / state.FILE).write_text(json.dumps(broken()))
    assert state.load(tmp_path) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        f'{{"version": "{state.VERSION}", "processes": []}}',
        f'{{"version": {state.VERSION}}}',
        f'{{"version": {state.VERSION}, "processes": [1]}}',
        "[" * 100_000,
        # To signal 0 or -1 is to signal a group, or everybody.
        *(json.dumps(broken(pid=pid)) for pid in (0, -1, True, "2", 2.0, None)),
        json.dumps(broken(start_time=-1)),
        json.dumps(broken(name=1)),
        json.dumps(broken(kind="else")),
        json.dumps(broken()) + " " * state.BYTES_MAX + "x",
    ],
)
def test_what_this_version_did_not_write_is_not_acted_upon(tmp_path, text):
    (tmp_path / state.FILE).write_text(text)
    with pytest.raises(DevError):
        state.load(tmp_path)


@pytest.mark.parametrize("version", [1, 99])
def test_a_state_of_another_version_is_refused_by_its_version(tmp_path, version):
    (tmp_path / state.FILE).write_text(json.dumps(broken() | {"version": version}))
    with pytest.raises(
        OtherVersionError, match=f"version {version} of its format; .* reads {state.VERSION}"
    ):
        state.load(tmp_path)


def test_a_state_without_a_version_is_refused_by_that(tmp_path):
    document = broken()
    del document["version"]
    (tmp_path / state.FILE).write_text(json.dumps(document))
    with pytest.raises(
        OtherVersionError, match=rf"has no version of its format; .* reads {state.VERSION}"
    ):
        state.load(tmp_path)


def test_only_one_command_at_a_time_changes_the_system(tmp_path):
    with (
        state.exclusive(tmp_path / "new"),
        pytest.raises(DevError, match="another command"),
        state.exclusive(tmp_path / "new"),
    ):
        raise AssertionError("unreachable")
    with state.exclusive(tmp_path / "new"):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def running(tmp_path: Path, name: str, order: Path) -> Process:
    code = (
        "import signal, sys, time\n"
        f"def note(*_): open({str(order)!r}, 'a').write('{name} '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, note)\n"
        f"open({str(tmp_path / name)!r}, 'w')\n"
        "time.sleep(600)"
    )
    process = spawn(
        name,
        [sys.executable, "-I", "-S", "-c", code],
        tmp_path / f"{name}.log",
        {},
        die_with_parent=True,
    )
    state.processes.wait_ready(process, state.processes.ReadyFile(tmp_path / name))
    return process


def test_services_end_before_brokers_and_the_backbone_last(tmp_path):
    order = tmp_path / "order"
    system = State(
        (
            Entry(running(tmp_path, "backbone", order), Kind.BROKER, "backbone"),
            Entry(running(tmp_path, "eu-de", order), Kind.BROKER, "region", "eu-de"),
            Entry(running(tmp_path, "core", order), Kind.INSTANCE, "core", "eu-de", "core-1"),
        )
    )
    assert all(status.running for status in system.status())
    assert set(system.stop().values()) == {End.DRAINED}
    assert order.read_text().split() == ["core", "eu-de", "backbone"]
    assert not any(status.running for status in system.status())


def test_a_private_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / "deep" / "file"
    write_private(path, "old")
    write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert names(path.parent) == ["file"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "taken", "x")
    assert names(tmp_path) == ["deep", "taken"]


def test_a_password_is_made_once_and_kept(tmp_path):
    first = password(tmp_path / "a")
    assert first == password(tmp_path / "a")
    assert first != password(tmp_path / "b")
    assert len(first) >= 43
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_password_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "a"
    secret = password(path)
    path.chmod(0o640)
    with pytest.raises(DevError) as caught:
        password(path)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 300, b"\xff\xfe"])
def test_what_is_no_password_is_refused(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DevError):
        password(path)
