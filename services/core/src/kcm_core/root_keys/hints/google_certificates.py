"""Verification of a token that Google signed, with cached certificates.

A client that reaches the listener can send any number of tokens. The content of a token is
therefore checked before anything is fetched, and certificates are fetched at most once a minute.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.auth import jwt
from google.auth.transport.requests import Request

TOKEN_MAX: Final = 8192
"""Characters of a token; Google's have about 1,000."""

KEEP_S: Final = 3600.0
"""Seconds for which certificates are cached: Google changes them every few days."""

AGAIN_S: Final = 60.0
"""Shortest time in seconds between two fetches, successful or not."""

FETCH_S: Final = 5
"""Timeout of a fetch in seconds."""

SKEW_S: Final = 10
"""Largest error of this machine's clock in seconds: Google signs a token when it sends it."""

CERTIFICATES_MAX: Final = 16
"""Certificates that are cached; Google publishes two or three."""

CERTIFICATES_URL: Final = "https://www.googleapis.com/oauth2/v1/certs"

ISSUERS: Final = ("accounts.google.com", "https://accounts.google.com")


def fetch() -> Mapping[str, str]:
    """Google's current certificates by id; raises ``ValueError``, ``GoogleAuthError``."""
    answer = Request()(CERTIFICATES_URL, timeout=FETCH_S)
    found = json.loads(answer.data)
    if answer.status != 200 or not isinstance(found, dict):
        raise ValueError("Google's certificates cannot be fetched")
    return found


class Google:
    """Verifies tokens for one service account."""

    def __init__(
        self,
        account: str,
        clock: Callable[[], float],
        fetch: Callable[[], Mapping[str, str]] = fetch,
    ) -> None:
        """``clock`` returns seconds and is monotonic."""
        self._account: Final = account
        self._clock: Final = clock
        self._fetch: Final = fetch
        self._lock: Final = threading.Lock()
        self._kept: Mapping[str, str] = {}
        self._until = self._next = clock()

    def __call__(self, token: str, audience: str) -> Mapping[str, Any]:
        """The claims of a token; raises ``ValueError`` or ``GoogleAuthError``."""
        if len(token) > TOKEN_MAX:
            raise ValueError("the token is too long")
        said: Any = jwt.decode(token, verify=False)  # type: ignore[no-untyped-call]
        header: Any = jwt.decode_header(token)  # type: ignore[no-untyped-call]
        key_id = header.get("kid")
        if (
            said.get("iss") not in ISSUERS
            or said.get("aud") != audience
            or said.get("email") != self._account
            or not isinstance(key_id, str)
        ):
            raise ValueError(
                "the token is not Google's for this audience and account, or names no key"
            )
        claims: Mapping[str, Any] = jwt.decode(  # type: ignore[no-untyped-call]
            token,
            certs=self._certificates(key_id),
            audience=audience,
            clock_skew_in_seconds=SKEW_S,
        )
        return claims

    def _certificates(self, key_id: str) -> Mapping[str, str]:
        with self._lock:
            now = self._clock()
            if (now >= self._until or key_id not in self._kept) and now >= self._next:
                self._next = now + AGAIN_S
                found = self._fetch()
                if len(found) > CERTIFICATES_MAX:
                    raise ValueError("there are too many certificates")
                self._kept, self._until = dict(found), now + KEEP_S
            if now >= self._until:
                raise ValueError("Google's certificates are too old")
            return self._kept
