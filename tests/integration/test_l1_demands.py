"""A key that works is still not any key: what `kcm l1 policy` demands, `kcm l1 check` looks for."""

import json
import subprocess
import sys

import pytest
from kcm_core.providers import requirements
from kcm_core.providers.remediation import policy
from kcm_core.providers.uri import parse
from kcm_core.unsealer.client import Unsealer

from tests.integration import softhsm

LACKS = {
    "create-aes": [],
    "create-rsa-3072": [],
    "create-extractable": [
        "CKA_SENSITIVE is false: it has to be true",
        "CKA_ALWAYS_SENSITIVE is false: it has to be true",
        "CKA_EXTRACTABLE is true: it has to be false",
        "CKA_NEVER_EXTRACTABLE is false: it has to be true",
    ],
    "create-128": ["CKA_VALUE_LEN is 16: it has to be 32"],
    "create-rsa": ["CKA_MODULUS_BITS is 2048: it has to be 3072 or more"],
    "import": [
        "CKA_ALWAYS_SENSITIVE is false: it has to be true",
        "CKA_NEVER_EXTRACTABLE is false: it has to be true",
        "CKA_LOCAL is false: it has to be true",
    ],
}


@pytest.fixture(scope="module")
def hsm(tmp_path_factory):
    made = softhsm.make(tmp_path_factory.mktemp("l1") / "hsm")
    for action in LACKS:
        made.run(action, action)
    return made


def checked(hsm, label, *options):
    done = subprocess.run(
        [f"{sys.prefix}/bin/kcm", "l1", "check", hsm.uri(label), *options],
        env={"PATH": "/usr/bin:/bin", **hsm.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("label", LACKS)
def test_what_a_key_lacks_is_said_and_refused_for_hyok(hsm, label):
    code, out = checked(hsm, label, "-o", "json")
    said = json.loads(out)
    assert (code, said["state"], said["missing"]) == (0, "enabled", LACKS[label])
    assert said["may_be_linked"]
    code, out = checked(hsm, label, "-o", "json", "--model", "hyok")
    said = json.loads(out)
    assert (code, said["missing"]) == (3 if LACKS[label] else 0, LACKS[label])
    assert said["may_be_linked"] is not bool(LACKS[label])
    assert len(said["fix"]) == bool(LACKS[label])


def test_a_person_is_told_what_is_missing_and_what_to_do(hsm):
    code, out = checked(hsm, "create-extractable", "-o", "table", "--model", "hyok")
    assert code == 3
    assert "missing: CKA_EXTRACTABLE is true: it has to be false" in out
    assert "next:    make another key" in out


async def test_every_attribute_that_is_demanded_is_read_from_the_token(hsm):
    unsealer = Unsealer(hsm.environment)
    try:
        for label, table in (
            ("create-aes", requirements.PKCS11_SECRET),
            ("create-rsa", requirements.PKCS11_PAIR),
        ):
            facts = await unsealer.inspect(hsm.uri(label), deadline_s=30.0)
            assert {one.fact for one in table} <= set(facts)
    finally:
        await unsealer.close()


def test_the_policy_prints_each_demand(hsm):
    text = policy(parse(hsm.uri("create-aes")))
    for one in requirements.PKCS11_SECRET:
        assert f"  {one.fact} " in text
    pair = policy(parse(hsm.uri("create-rsa", extra=";type=private")))
    assert "CKA_MODULUS_BITS       3072 or more" in pair
