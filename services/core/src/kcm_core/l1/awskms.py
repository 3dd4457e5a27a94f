"""A key in awskms: to be written."""

from __future__ import annotations

from kcm_core.l1.port import Opened, WrapResult, unknown_mechanism
from kcm_core.l1.uri import AwsKmsUri


class AwsKmsProvider:
    """The key that the URI names."""

    def __init__(self, uri: AwsKmsUri) -> None:
        self._uri = uri

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap."""
        raise unknown_mechanism()

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> Opened:
        """Open what ``wrap`` made."""
        raise unknown_mechanism()
