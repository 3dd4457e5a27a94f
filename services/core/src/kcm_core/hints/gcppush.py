"""``gcppush``: what Cloud Audit Logs say of keys, pushed by Pub/Sub over HTTP.

Prints the name of each key that a log entry is about. A push has to bear a token that Google signed
for the audience and the service account that are named; everything else is answered with 403. A
reverse proxy in front speaks TLS.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from google.auth import exceptions
from google.auth.transport.requests import Request
from google.oauth2 import id_token

BODY_MAX: Final = 1 << 20
READ_S: Final = 10

_KEY: Final = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")

Claims = Callable[[str, str], dict[str, Any]]
"""The claims of a token for an audience; raises ``ValueError`` or ``GoogleAuthError``."""


def key_of(body: bytes) -> str | None:
    """The name of the key that a push is about; none for any other message."""
    try:
        entry = json.loads(base64.b64decode(json.loads(body)["message"]["data"], validate=True))
        found = _KEY.match(entry["protoPayload"]["resourceName"])
    except (KeyError, TypeError, ValueError):
        return None
    return found[0] if found else None


def google_claims(token: str, audience: str) -> dict[str, Any]:
    """Google's own verification, with its keys of today."""
    claims: dict[str, Any] = id_token.verify_oauth2_token(  # type: ignore[no-untyped-call]
        token, Request(), audience
    )
    return claims


def server(
    address: tuple[str, int], audience: str, account: str, claims: Claims = google_claims
) -> ThreadingHTTPServer:
    """A server that prints what it is told; ``claims`` verifies a token."""

    class Handler(BaseHTTPRequestHandler):
        timeout = READ_S

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
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
            """Say nothing: what is pushed is not ours to log."""

    return ThreadingHTTPServer(address, Handler)


def main() -> None:
    """Listen where it is told."""
    parser = argparse.ArgumentParser(prog="gcppush")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--audience", required=True)
    parser.add_argument("--account", required=True, help="the service account that pushes")
    asked = parser.parse_args()
    host, _, port = asked.listen.rpartition(":")
    server((host, int(port)), asked.audience, asked.account).serve_forever()


if __name__ == "__main__":
    main()
