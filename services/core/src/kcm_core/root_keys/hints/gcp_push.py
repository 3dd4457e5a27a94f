"""``gcp_push``: Cloud Audit Logs about keys, pushed by Pub/Sub over HTTP.

Prints the name of each key that a log entry is about. A push must have a token that Google signed
for the configured audience and service account; all other requests are answered with 403. A reverse
proxy in front of this server terminates TLS.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from google.auth import exceptions

from kcm_core.root_keys.hints.bounded_server import CONNECTION_S, BoundedServer
from kcm_core.root_keys.hints.google_certificates import Google

BODY_MAX: Final = 1 << 20
READ_S: Final = 10
DIGITS_MAX: Final = 9
"""Digits of a content length: no valid body needs more."""

_KEY: Final = re.compile(
    "projects/{0}/locations/{0}/keyRings/{0}/cryptoKeys/{0}".format("[!-.0-~]+")
)

Claims = Callable[[str, str], Mapping[str, Any]]
"""The claims of a token for an audience; raises ``ValueError`` or ``GoogleAuthError``."""


def key_of(body: bytes) -> str | None:
    """The name of the key that a push is about; ``None`` for any other message."""
    try:
        entry = json.loads(base64.b64decode(json.loads(body)["message"]["data"], validate=True))
        found = _KEY.match(entry["protoPayload"]["resourceName"])
    except (KeyError, TypeError, ValueError):
        return None
    return found[0] if found else None


def size_of(header: str | None) -> int:
    """The content length that a header gives; 0 if it is not a number or is out of range."""
    known = header and len(header) <= DIGITS_MAX and header.isascii() and header.isdigit()
    return int(header) if header and known else 0


def server(
    address: tuple[str, int],
    audience: str,
    account: str,
    claims: Claims,
    connection_s: float = CONNECTION_S,
) -> BoundedServer:
    """A server that prints the hints that it receives; ``claims`` verifies a token."""

    class Handler(BaseHTTPRequestHandler):
        timeout = READ_S

        def do_POST(self) -> None:
            size = size_of(self.headers.get("Content-Length"))
            if not 0 < size <= BODY_MAX:
                self._answer(413)
            elif not self._believed():
                self._answer(403)
            else:
                key = key_of(self.rfile.read(size))
                if key is not None:
                    sys.stdout.write(f"{key}\n")
                    sys.stdout.flush()
                self._answer(204)

        def _believed(self) -> bool:
            kind, _, token = self.headers.get("Authorization", "").partition(" ")
            if kind != "Bearer":
                return False
            try:
                said = claims(token, audience)
            except (ValueError, exceptions.GoogleAuthError):
                return False
            return said.get("email") == account and said.get("email_verified") is True

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing: the content of a push must not be logged."""

    return BoundedServer(address, Handler, connection_s)


def main() -> None:
    """Serve at the address that the arguments give."""
    parser = argparse.ArgumentParser(prog="gcp_push")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--audience", required=True)
    parser.add_argument("--account", required=True, help="the service account that pushes")
    asked = parser.parse_args()
    host, _, port = asked.listen.rpartition(":")
    google = Google(asked.account, time.monotonic)
    server((host, int(port)), asked.audience, asked.account, google).serve_forever()


if __name__ == "__main__":
    main()
