"""Validation of a link to a customer's key: the key is tried first, as it will be used.

A refusal states the reason. Nothing partial remains: the results of the trial are discarded, and
only a key that works is linked. For the model hyok it must also meet ``demands``.
"""

from __future__ import annotations

from typing import Final

from kcm_runtime.host import Host
from kcm_schemas.admin.links import LinkView
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link

from kcm_core.providers.remediation import fix, fix_lack
from kcm_core.providers.state import L1State
from kcm_core.providers.uri import L1Uri, L1UriError, parse
from kcm_core.root_keys.key_check import Checked, check
from kcm_core.unsealer.port import UnsealerPort


class LinkValidator:
    """Tries keys in the name of one Core."""

    def __init__(
        self,
        host: Host,
        unsealer: UnsealerPort,
        deadline_s: float,
    ) -> None:
        self._region: Final = host.me.region
        self._clock: Final = host.clock
        self._random: Final = host.randomness
        self._unsealer: Final = unsealer
        self._deadline_s: Final = deadline_s

    async def check(self, link: Link) -> LinkView:
        """Try the key; raises ``malformed``, ``forbidden`` or ``unavailable`` with what to do."""
        try:
            uri = parse(link.uri)
        except L1UriError as error:
            raise KcmError(Code.MALFORMED, f"the root key's URI: {error}") from None
        checked = await check(
            self._unsealer,
            link.uri,
            model=link.model,
            deadline_s=self._deadline_s,
            now=self._clock.elapsed,
            random=self._random.public,
        )
        if checked.state is not L1State.ENABLED:
            raise _refusal(uri, checked)
        if link.model == "hyok" and checked.lacks:
            lacks = "; ".join(checked.lacks)
            detail = (
                f"the root key does not qualify for hyok: {lacks}. Next: {fix_lack(checked.lacks)}"
            )
            raise KcmError(Code.FORBIDDEN, detail)
        return LinkView(
            link=link.link,
            region=self._region,
            mechanism=checked.mechanism,
            key_version=checked.key_version,
            principal=checked.principal,
            ms=next((int(step.ms) for step in checked.steps if step.name == "unwrap"), 0),
        )


def _refusal(uri: L1Uri, checked: Checked) -> KcmError:
    error = checked.error
    assert error is not None
    code = Code.UNAVAILABLE if error.state is L1State.UNREACHABLE else Code.FORBIDDEN
    return KcmError(code, f"the root key: {error}. Next: {fix(uri, error)}")
