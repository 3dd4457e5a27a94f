"""The roster: signed by the root alone, never older than one seen, nobody on it twice."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from kcm_runtime.files.identity_file import create_identity, load_identity
from kcm_runtime.files.secret_file import SecretFileError
from kcm_schemas.codec import encode
from kcm_schemas.registry import Service
from kcm_schemas.roster import Roster
from kcm_schemas.signed import Kind, Signed
from kcm_trust.identity import ROOT, Identity, check, digest, to_sign
from kcm_trust.verify import Untrusted, verify_roster

from tests.unit.trust_rig import roster
from tests.vectors.families.messages import identity, private_key

THE_ROOT = identity(ROOT)
VERSION = roster().version


def signed(entries: Roster, by: Identity = THE_ROOT) -> bytes:
    return encode(by.sign(Kind.ROSTER, entries))


def changed(**fields: Any) -> Roster:
    return Roster(**(dict(roster()) | fields))


@pytest.mark.parametrize("seen", [0, VERSION - 1, VERSION])
def test_believed(seen: int) -> None:
    assert verify_roster(signed(roster()), THE_ROOT.public, seen) == roster()


@pytest.mark.parametrize("seen", [VERSION + 1, (1 << 32) - 1])
def test_an_older_one_than_was_seen_is_refused(seen: int) -> None:
    with pytest.raises(Untrusted, match="older"):
        verify_roster(signed(roster()), THE_ROOT.public, seen)


def test_another_root_is_refused() -> None:
    with pytest.raises(Untrusted, match="root"):
        verify_roster(signed(roster()), identity("stranger").public, 0)
    with pytest.raises(Untrusted, match="root"):
        verify_roster(signed(roster(), identity("stranger")), THE_ROOT.public, 0)


def test_the_roots_key_in_another_name_is_refused() -> None:
    key = private_key(ROOT)
    assert Identity(ROOT, key, "test").public == THE_ROOT.public
    with pytest.raises(Untrusted, match="root"):
        verify_roster(signed(roster(), Identity("admin", key, "test")), THE_ROOT.public, 0)


def test_an_operator_of_a_roster_signs_no_roster() -> None:
    with pytest.raises(Untrusted):
        verify_roster(signed(roster(), identity("security")), THE_ROOT.public, 0)


def test_every_byte_counts() -> None:
    good = signed(roster())
    for at in range(len(good)):
        broken = bytearray(good)
        broken[at] ^= 1
        with pytest.raises(Untrusted):
            verify_roster(bytes(broken), THE_ROOT.public, 0)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.ROSTER])
def test_another_kind_is_refused(kind: Kind) -> None:
    raw = encode(THE_ROOT.sign(kind, roster()))
    with pytest.raises(Untrusted):
        verify_roster(raw, THE_ROOT.public, 0)
    moved = Signed(**(dict(THE_ROOT.sign(kind, roster())) | {"kind": Kind.ROSTER}))
    with pytest.raises(Untrusted):
        verify_roster(encode(moved), THE_ROOT.public, 0)


def test_another_body_is_refused() -> None:
    body = Service(tenant="acme", service="payroll", revision=1)
    with pytest.raises(Untrusted, match="well formed"):
        verify_roster(encode(THE_ROOT.sign(Kind.ROSTER, body)), THE_ROOT.public, 0)


def _named(name: str) -> list[Any]:
    first, *rest = roster().instances
    return [type(first)(**(dict(first) | {"instance": name})), *rest]


@pytest.mark.parametrize(
    "entries",
    [
        changed(instances=[*roster().instances, roster().instances[0]]),
        changed(operators=[*roster().operators, roster().operators[0]]),
        changed(instances=_named("admin")),
        changed(instances=_named(ROOT)),
        changed(regions=[*roster().regions, roster().regions[0]]),
        changed(
            regions=[
                type(roster().regions[0])(**(dict(roster().regions[0]) | {"region": "ctl"})),
            ]
        ),
    ],
    ids=["instance twice", "operator twice", "two kinds", "root", "region twice", "reserved"],
)
def test_nobody_is_named_twice(entries: Roster) -> None:
    with pytest.raises(Untrusted, match="the roster has"):
        verify_roster(signed(entries), THE_ROOT.public, 0)


def test_an_identity_comes_back_from_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "key")
    made = create_identity("me", path, "test")
    again = load_identity("me", path, "test")
    assert made.public == again.public
    body = Service(tenant="acme", service="payroll", revision=1)
    statement = again.sign(Kind.SERVICE, body)
    message = to_sign("test", Kind.SERVICE, "me", digest(statement.body))
    (one,) = statement.signatures
    assert check(made.public, one.signature, message)
    assert not check(made.public, one.signature, message + b"!")
    with pytest.raises(FileExistsError):
        create_identity("me", path, "test")
    Path(path).chmod(0o644)
    with pytest.raises(SecretFileError, match="chmod 600"):
        load_identity("me", path, "test")


def test_an_identity_shows_no_key() -> None:
    me = identity("me")
    assert repr(me) == "<Identity me>"
    with pytest.raises(TypeError):
        pickle.dumps(me)


@pytest.mark.parametrize(
    ("public", "signature"),
    [
        (b"", bytes(64)),
        (bytes(31), bytes(64)),
        (bytes(33), bytes(64)),
        (bytes(32), b""),
        (b"", b""),
    ],
)
def test_nonsense_holds_no_signature(public: bytes, signature: bytes) -> None:
    assert not check(public, signature, b"message")
