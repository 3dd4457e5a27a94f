"""One table of what a root key has to be; the docs show the same."""

from pathlib import Path

import pytest
from kcm_core.providers import requirements
from kcm_core.providers.uri import parse

HSM = parse("pkcs11:token=t;object=k?module-path=/m.so")
GCP = parse("gcpkms:projects/p-1/locations/europe-west3/keyRings/ring/cryptoKeys/root")
PAGES = {
    "pkcs11": (requirements.PKCS11_SECRET, requirements.PKCS11_PAIR),
    "awskms": (requirements.AWSKMS,),
    "gcpkms": (requirements.GCPKMS,),
    "azurekv": (requirements.AZUREKV,),
}


def good(table):
    return {one.fact: str(one.least) if one.least else one.good[0] for one in table}


@pytest.mark.parametrize("model", ["byok", "hyok"])
def test_a_key_that_is_what_it_has_to_be_lacks_nothing(model):
    for table in (requirements.PKCS11_SECRET, requirements.PKCS11_PAIR):
        assert requirements.lacking(HSM, good(table), model) == ()


@pytest.mark.parametrize("one", requirements.PKCS11_SECRET[1:], ids=lambda one: one.fact)
def test_what_is_not_said_is_lacking(one):
    facts = good(requirements.PKCS11_SECRET)
    del facts[one.fact]
    lacks = requirements.lacking(HSM, facts, "byok")
    assert lacks == (f"{one.fact} is not said: it has to be {one.wanted}",)


@pytest.mark.parametrize("word", ["", "x", "-1", "3071", "3e9", "\u0663\u0660\u0667\u0662"])
def test_a_size_that_is_too_small_or_no_number_is_lacking(word):
    facts = good(requirements.PKCS11_PAIR) | {"CKA_MODULUS_BITS": word}
    assert len(requirements.lacking(HSM, facts, "byok")) == 1


def test_a_key_in_software_does_for_byok_alone():
    facts = good(requirements.GCPKMS) | {"protectionLevel": "SOFTWARE"}
    assert requirements.lacking(GCP, facts, "byok") == ()
    assert len(requirements.lacking(GCP, facts, "hyok")) == 1


def test_facts_survive_the_pipe_and_nothing_in_them_reaches_a_terminal_raw():
    facts = {"a": "b c", "d": ""}
    assert requirements.unpacked(requirements.packed(facts)) == facts
    told = requirements.unpacked(b"x \x1b[31m\xff\nno-word\n\n")
    assert told == {"x": "?[31m?", "no-word": ""}
    assert requirements.unpacked(requirements.packed({"x": "1\ny 2"})) == {"x": "1?y 2"}
    many = "\n".join(f"f{n} x" for n in range(1000)).encode()
    assert len(requirements.unpacked(many)) == requirements.FACTS_MAX


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_docs_have_the_table(page):
    text = (Path(__file__).parents[2] / f"docs/l1/{page}.md").read_text()
    for table in PAGES[page]:
        assert requirements.as_table(table) in text, requirements.as_table(table)
