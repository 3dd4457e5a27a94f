"""Clouds are reached by IPv6 and through proxies, as whoever runs the Core says."""

from __future__ import annotations

import re

import pytest

from tests.l1 import doors
from tests.l1.using import used

pytestmark = pytest.mark.parametrize("shared", ["awskms", "azurekv", "gcpkms"], indirect=True)


def port_of(uri: str) -> int:
    found = re.search(r"127\.0\.0\.1:(\d+)", uri)
    assert found is not None
    return int(found[1])


async def test_an_ipv6_address_is_one(stand):
    port = port_of(stand.uri)
    with doors.ipv6(port) as door:
        place = f"[::1]:{door.port}"
        allowed = f"127.0.0.1:{port},{place}"
        before = len(stand.calls)
        if stand.name == "azurekv":
            uri = stand.uri.replace(f"azurekv:127.0.0.1:{port}", f"azurekv:{place}")
        else:
            uri = stand.uri.replace(f"endpoint=127.0.0.1:{port}", f"endpoint=https://{place}")
        assert "[::1]" in uri
        await used(stand, {**stand.environment, "KCM_L1_ENDPOINTS": allowed}, uri)
        assert len(stand.calls) > before


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_a_proxy_is_used(stand, variable):
    with doors.proxy() as door:
        await used(stand, {**stand.environment, variable: f"http://127.0.0.1:{door.port}"})
    assert f"127.0.0.1:{port_of(stand.uri)}" in door.asked


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
async def test_a_proxy_is_not_used_for_what_is_excepted(stand, variable):
    with doors.proxy() as door:
        ways = {"HTTPS_PROXY": f"http://127.0.0.1:{door.port}", variable: "127.0.0.1"}
        await used(stand, {**stand.environment, **ways})
    assert door.asked == []


async def test_no_proxy_is_inherited(stand, monkeypatch):
    with doors.proxy() as door:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{door.port}")
        await used(stand, stand.environment)
    assert door.asked == []
