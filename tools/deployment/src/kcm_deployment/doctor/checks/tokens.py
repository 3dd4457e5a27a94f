"""The token of a broker's user, in its credentials file: until when the broker accepts it."""

from __future__ import annotations

from typing import Final

from kcm_broker import tokens
from kcm_broker.tokens import TokenKind
from kcm_schemas.codes import KcmError

from kcm_deployment.doctor.finding import Finding, bad, good, warn

DAYS_LOW: Final = 14
"""Days that a token should be valid, so that there is time to issue another one."""

_DAY_S: Final = 86_400


def check_token(check: str, token: str, now_s: int) -> Finding:
    """Judge the validity of a user's token, which need not be signed by a known account."""
    fix = "issue new credentials for this user, and replace the file: no restart is needed"
    try:
        claims = tokens.verify(token, TokenKind.USER, {tokens.peek_issuer(token)})
    except KcmError as error:
        return bad(check, f"the user's token cannot be used: {error.detail}", fix)
    if now_s < claims.not_before:
        text = "the user's token is not valid yet"
        return bad(check, text, "set the clock of this machine, or wait")
    if not claims.expires:
        return good(check, "the user's token has no end")
    days = (claims.expires - now_s) // _DAY_S
    if claims.expires <= now_s:
        return bad(check, "the user's token has expired", fix)
    text = f"the user's token is valid for another {days} days"
    return warn(check, text, fix) if days < DAYS_LOW else good(check, text)
