"""What a wrap is bound to: another region, tenant, service, version or seal key opens nothing."""

import dataclasses
import os

import pytest
from kcm_core.keys.keyring import RootName, ServiceKey, ServiceName
from kcm_core.keys.vault import SealKey, Vault
from kcm_keymem.arena import Keys, Purged
from kcm_keymem.random import SystemKeyRandomness
from kcm_schemas.codes import Code, KcmError

KEY = ServiceKey("acme", "crm", 1, 1)
ID = b"i" * 16


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "seal"
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def vault(secret):
    return Vault("eu", SealKey(ID, secret), SystemKeyRandomness())


def open_root(vault, inner, tenant="acme", version=1, generation=0):
    return vault.open_root(tenant, version, memoryview(inner), generation)


def places(data):
    return Keys.of(memoryview(bytearray(data)))


def opened(vault):
    """The vault's ring with a service key in it, and that key's wrapped form."""
    ring = open_root(vault, vault.make_root("acme", 1))
    blob = vault.make_service_key(ring, KEY)
    vault.open_service_key(ring, KEY, blob)
    return ring, blob


def wrapped(vault, ring, count=2, key=KEY):
    keys = places(os.urandom(32 * count))
    out = memoryview(bytearray(72 * count))
    vault.wrap(ring, key, "record", keys, out)
    return keys.view.tobytes(), out


def tampered(call, *args, **named):
    with pytest.raises(KcmError) as info:
        call(*args, **named)
    assert info.value.code is Code.TAMPERED


def test_a_root_opens_only_where_it_belongs(vault, secret, tmp_path):
    inner = vault.make_root("acme", 1)
    assert len(inner) == 72
    assert vault.open_tenants == []
    abroad = Vault("us", SealKey(ID, secret), SystemKeyRandomness())
    renamed = Vault("eu", SealKey(b"j" * 16, secret), SystemKeyRandomness())
    other = tmp_path / "other"
    other.write_bytes(os.urandom(32))
    other.chmod(0o600)
    stranger = Vault("eu", SealKey(ID, str(other)), SystemKeyRandomness())
    for wrong in (abroad, renamed, stranger):
        tampered(open_root, wrong, inner)
        assert wrong.open_tenants == []
    tampered(open_root, vault, inner, tenant="bcme")
    tampered(open_root, vault, inner, version=2)
    tampered(open_root, vault, inner[:-1] + bytes([inner[-1] ^ 1]))
    tampered(open_root, vault, inner[:-1])
    assert vault.open_tenants == []
    assert open_root(vault, inner) is vault.ring("acme")


def test_a_root_that_does_not_open_closes_nothing_that_is_open(vault):
    ring, _ = opened(vault)
    tampered(open_root, vault, vault.make_root("bcme", 2), version=2)
    assert vault.ring("acme") is ring
    assert RootName(2) not in ring
    assert len(wrapped(vault, ring)[1]) == 144


def test_a_root_of_another_generation_makes_a_ring_of_its_own(vault):
    old, _ = opened(vault)
    new = open_root(vault, vault.make_root("acme", 1), generation=1)
    assert old.purged
    assert vault.ring("acme") is new
    assert ServiceName("crm", 1) not in new


@pytest.mark.parametrize("change", [{"service": "hr"}, {"version": 2}, {"tenant": "bcme"}])
def test_a_service_key_opens_only_where_it_belongs(vault, change):
    ring, blob = opened(vault)
    wrong = dataclasses.replace(KEY, **change)
    tampered(vault.open_service_key, ring, wrong, blob)
    assert ServiceName(wrong.service, wrong.version) not in ring
    tampered(vault.open_service_key, ring, KEY, bytes(72))


def test_data_keys_come_back_and_only_where_they_belong(vault):
    ring, _ = opened(vault)
    keys, blobs = wrapped(vault, ring, 3)
    out = places(bytes(96))
    assert vault.unwrap(ring, KEY, "record", blobs, out) == []
    assert out.view.tobytes() == keys
    assert vault.unwrap(ring, KEY, "stream", blobs, out) == [0, 1, 2]
    assert not any(out.view)
    second = ServiceKey("acme", "crm", 2, 1)
    vault.open_service_key(ring, second, vault.make_service_key(ring, second))
    assert vault.unwrap(ring, second, "record", blobs, out) == [0, 1, 2]
    blobs[80] ^= 1
    assert vault.unwrap(ring, KEY, "record", blobs, out) == [1]
    assert out.view.tobytes() == keys[:32] + bytes(32) + keys[64:]


def test_no_two_wraps_share_a_nonce(vault):
    ring, _ = opened(vault)
    nonces = []
    for _ in range(20):
        _, blobs = wrapped(vault, ring, 50)
        nonces += [blobs[at : at + 24].tobytes() for at in range(0, len(blobs), 72)]
    assert len(set(nonces)) == 1000


def test_a_data_key_of_zeros_is_refused(vault):
    ring, _ = opened(vault)
    with pytest.raises(KcmError) as info:
        vault.wrap(ring, KEY, "record", places(bytes(64)), memoryview(bytearray(144)))
    assert info.value.code is Code.MALFORMED


def test_after_a_purge_the_old_ring_does_nothing(vault):
    ring, blob = opened(vault)
    _, blobs = wrapped(vault, ring)
    assert vault.purge("acme") == 2
    assert vault.purge("acme") == 0
    assert vault.ring("acme") is None
    for call in (
        lambda: wrapped(vault, ring),
        lambda: vault.unwrap(ring, KEY, "record", blobs, places(bytes(64))),
        lambda: vault.open_service_key(ring, KEY, blob),
        lambda: vault.make_service_key(ring, KEY),
    ):
        with pytest.raises(Purged):
            call()


def test_a_purge_wipes_one_tenant_and_no_other(vault):
    opened(vault)
    other = open_root(vault, vault.make_root("bcme", 1), tenant="bcme")
    vault.purge("acme")
    assert vault.open_tenants == ["bcme"]
    assert not other.purged


def test_a_closed_vault_has_wiped_its_seal_key_and_opens_nothing(vault, secret):
    ring, _ = opened(vault)
    inner = vault.make_root("acme", 1)
    vault.close()
    vault.close()
    assert vault.open_tenants == []
    with pytest.raises(Purged), ring.use():
        pass
    for ask in (
        lambda: vault.make_root("acme", 2),
        lambda: open_root(vault, inner),
        lambda: vault.check_root("acme", 1, memoryview(inner)),
    ):
        with pytest.raises(Purged):
            ask()
    assert vault.open_tenants == []
