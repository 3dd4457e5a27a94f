"""The search for keys: what it finds, and that it fails where it must."""

from __future__ import annotations

import base64
import os

import pytest

from tests.security import memscan, scan
from tests.security.looking import Leak, Seen
from tests.security.memscan import Tenant

KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
NAMES = frozenset({"acme/root/0"})


def test_round_keys_are_those_of_the_standard() -> None:
    """FIPS 197, appendix A.3."""
    keys = scan.round_keys(KEY)
    assert len(keys) == 15
    assert keys[0] + keys[1] == KEY
    assert keys[2].hex() == "9ba354118e6925afa51a8b5f2067fcde"
    assert keys[14].hex() == "fe4890d1e6188d0b046df344706c631e"


@pytest.mark.parametrize("start", range(scan.WINDOW + 1))
@pytest.mark.parametrize("form", range(len(scan.forms(KEY))))
def test_every_form_is_found_at_every_address(form: int, start: int) -> None:
    search = scan.Search({"acme": KEY, "globex": os.urandom(32)})
    chunk = os.urandom(1000 + start) + scan.forms(KEY)[form] + os.urandom(1000)
    assert set(search.within(chunk)) == {"acme"}


@pytest.mark.parametrize("before", range(4))
def test_a_key_within_a_longer_text_in_base64_is_found(before: int) -> None:
    text = base64.b64encode(os.urandom(before) + KEY + os.urandom(5))
    assert set(scan.Search({"acme": KEY}).within(text)) == {"acme"}


def test_what_is_no_key_is_not_found() -> None:
    search = scan.Search({"acme": KEY})
    nearly = KEY[:12] + bytes(4)
    assert not set(search.within(os.urandom(100_000) + nearly + bytes(100)))


def test_the_memory_of_another_process_is_read() -> None:
    assert any(scan.memory(os.getpid()))
    secret = os.urandom(32)
    assert scan.Search({"own": secret}).names(os.getpid()) == {"own"}


def test_a_key_of_a_killed_tenant_is_a_leak_wherever_it_is() -> None:
    memscan.nowhere([Seen("core-1", "core", frozenset({"globex/root/0"}))], Tenant("acme"))
    with pytest.raises(Leak, match="core-1 still has acme/root/0"):
        memscan.nowhere([Seen("core-1", "core", NAMES)], Tenant("acme"))


@pytest.mark.parametrize("role", ["gateway", "auditor", "region", "unsealer", "child", "watcher"])
def test_a_tenant_root_outside_a_core_is_a_leak(role: str) -> None:
    memscan.only_where_it_may_be([Seen("it", "core", NAMES)])
    with pytest.raises(Leak, match="it must not have acme/root/0"):
        memscan.only_where_it_may_be([Seen("it", role, NAMES)])


@pytest.mark.parametrize("role", ["core", "gateway"])
def test_a_used_data_key_is_a_leak_everywhere(role: str) -> None:
    with pytest.raises(Leak, match="used"):
        memscan.only_where_it_may_be([Seen("it", role, frozenset({"acme/used/3"}))])


def test_a_search_that_finds_nothing_fails() -> None:
    memscan.found_somewhere([Seen("core-1", "core", NAMES)], Tenant("acme"), ("root",))
    with pytest.raises(Leak, match="does not find"):
        memscan.found_somewhere([], Tenant("acme"), ("root",))


def test_without_the_right_to_read_other_processes_it_fails(monkeypatch, capsys) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["memscan"])
    assert memscan.main() == 2
    assert "run it as root" in capsys.readouterr().err
