"""Makes the test vectors: ``python -m tests.vectors.generate`` writes them anew.

Every input is fixed, so the same code gives the same files, and a test says so. A change of the
files is a change of the wire format: it belongs in ``docs/wire-format.md`` and the changelog.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.vectors.families import channel, keys, messages, records
from tests.vectors.families.fixed import Document

HERE = Path(__file__).parent


def build() -> dict[str, Document]:
    """All vectors by the name of their file."""
    return {
        "ctx": keys.contexts(),
        "xaes": keys.xaes_vectors(),
        "wrap": keys.wraps(),
        "records": records.records(),
        "codec": messages.codec(),
        "signed": messages.signed(),
        "holds": messages.holds(),
        "audit": messages.audit(),
        "channel": channel.channel(),
    }


def render(document: Document) -> str:
    """The text of a file."""
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def path(name: str) -> Path:
    """Where a file of vectors lies."""
    return HERE / f"{name}.json"


def load(name: str) -> Document:
    """Vectors as they are stored."""
    document: Document = json.loads(path(name).read_text(encoding="ascii"))
    return document


def main() -> None:
    """Write every file."""
    for name, document in build().items():
        path(name).write_text(render(document), encoding="ascii")


if __name__ == "__main__":
    main()
