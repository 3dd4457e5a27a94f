"""``docs/any-language.md`` has the bytes that this code reads and writes."""

import re
from pathlib import Path

import pytest
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code
from kcm_schemas.data import (
    DecryptReply,
    DecryptRequest,
    EncryptReply,
    EncryptRequest,
    Failure,
)

TEXT = (Path(__file__).parents[2] / "docs" / "any-language.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- bytes: (\w+) -->\n```text\n(.*?)```", TEXT, re.DOTALL))
MS = 1_800_000_000_000
MESSAGES = {
    "encrypt": EncryptRequest(
        v=1, deadline_ms=MS, dek_scope="record", plaintexts=[b"I10"], contexts=[b"row 7"]
    ),
    "decrypt": DecryptRequest(v=1, deadline_ms=MS, records=[b"\xde\xad"], contexts=[b"row 7"]),
    "encrypted": EncryptReply(v=1, lease_ms=5000, records=[b"\xde\xad"], codes=[]),
    "decrypted": DecryptReply(
        v=1, lease_ms=4000, plaintexts=[b"I10", b""], codes=[Code.OK, Code.TAMPERED]
    ),
    "refused": Failure(v=1, error=Code.FORBIDDEN, detail="no grant"),
}


def printed(block: str) -> bytes:
    """The bytes of a block: what stands before the meaning of each line."""
    lines = [line.strip() for line in block.splitlines()]
    found = [re.match(r"[0-9a-f ]*?(?=\s{2,}\S*[\"{]|$)", line) for line in lines]
    return bytes.fromhex("".join(one[0] for one in found if one))


def test_every_message_is_printed() -> None:
    assert set(BLOCKS) == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_bytes_are_those_of_the_message(name: str) -> None:
    message = MESSAGES[name]
    assert printed(BLOCKS[name]) == encode(message)
    assert decode(type(message), printed(BLOCKS[name])) == message
