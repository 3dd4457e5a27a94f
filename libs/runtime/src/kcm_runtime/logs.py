"""The log of a service: lines as text or JSON, with named values.

A value with a name (``fields``) is an identifier, a number, a path or an address. In text it is
quoted if it could be read as several values. In JSON, the values of a line are in ``fields``, so
that none of them can replace the name of the instance that writes the line. Key
material, payloads and the texts of foreign exceptions never reach a log: of an exception only its
class and its frames are written (``kcm_runtime.error_text``). The standard library suffices; the
process that holds keys has no library for this.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Final, Literal, TypedDict, Unpack

from kcm_schemas.text import printable

from kcm_runtime.error_text import describe

LogFormat = Literal["text", "json"]

_KEY: Final = "kcm_fields"

_AMBIGUOUS: Final = re.compile(r'[\s="]')


class Fields(TypedDict, total=False):
    """The names of values. Bytes are written in hexadecimal; ``None`` is not written."""

    hold: bytes
    tenant: str | None
    service: str | None
    link: str
    app: str
    region: str | None
    instance: str | None
    actor: str | None
    signer: str
    stream: str
    endpoint: str
    broker: str
    bus: str | None
    subject: str
    path: str
    code: str
    count: int
    version: int
    sequence: int


def fields(**named: Unpack[Fields]) -> dict[str, object]:
    """Name values of a line: ``log.error("...", extra=fields(hold=hold_id))``."""
    return {_KEY: named}


class LineFormatter(logging.Formatter):
    """One line for each record. In JSON, each line also has ``constants``."""

    def __init__(self, form: LogFormat, constants: Fields | None = None) -> None:
        super().__init__()
        self._json: Final = form == "json"
        self._constants: Final = dict(constants or {})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. A traceback would have texts of exceptions: it is not written."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {describe(record.exc_info[1])}"
        named = {
            name: _shown(value)
            for name, value in getattr(record, _KEY, {}).items()
            if value is not None
        }
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        if self._json:
            head = {"time": time, "level": record.levelname, "logger": record.name}
            line = {**head, **self._constants, "message": printable(message), "fields": named}
            return json.dumps(line)
        parts = (f" {name}={_quoted(value)}" for name, value in named.items())
        return f"{time} {record.levelname} {printable(message)}{''.join(parts)}"


def _shown(value: object) -> int | str:
    if isinstance(value, int):
        return value
    return value.hex() if isinstance(value, bytes) else printable(str(value))


def _quoted(value: int | str) -> str:
    """Return a value that ends at the next space, so that no value can look like two."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if _AMBIGUOUS.search(text) else text


def configure(form: LogFormat = "text", constants: Fields | None = None) -> None:
    """Write the lines of this process to the standard error stream, from the level INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(form, constants))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
