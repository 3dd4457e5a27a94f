"""An import guard: no cloud SDK in the process that holds keys.

boto3 was found to leave a key in memory, raw and in base64, and a PKCS#11 module can corrupt the
heap of its process. The architecture keeps them out of the Core. The guard turns a mistake (a stray
import, a dependency's plug-in) into an immediate error. It protects against accidents, not against
code that circumvents it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

FORBIDDEN: Final = (
    "azure",
    "boto3",
    "botocore",
    "google.api_core",
    "google.auth",
    "google.cloud",
    "grpc",
    "pkcs11",
    "s3transfer",
)
"""Packages that call an L1, and their dependencies."""


class CloudSdkImportError(ImportError):
    """An L1's library was about to be imported into the process that holds keys."""


class _Finder:
    @staticmethod
    def find_spec(
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG004 - the protocol of a finder
        target: ModuleType | None = None,  # noqa: ARG004
    ) -> ModuleSpec | None:
        """Refuse forbidden modules, and leave all others to the next finder."""
        if _forbidden(fullname):
            raise CloudSdkImportError(
                f"{fullname} must not be imported into the process that holds keys: "
                "only the unsealer's children may",
                name=fullname,
            )
        return None


def _forbidden(fullname: str) -> bool:
    return any(fullname == name or fullname.startswith(f"{name}.") for name in FORBIDDEN)


def forbid_cloud_sdks() -> None:
    """Refuse such imports from now on; raises CloudSdkImportError after an earlier one.

    The composition root calls this before all other imports. Idempotent.
    """
    present = sorted(name for name in sys.modules if _forbidden(name))
    if present:
        raise CloudSdkImportError(f"{present[0]} is already imported", name=present[0])
    if not any(finder is _Finder for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder)
