"""The SDK: ``from kcm import Client``, and the ``kcm`` command.

Names are imported when they are first used, so that ``kcm --help`` loads no network client and no
cryptography.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcm_schemas.codes import Code, KcmError

    from kcm.admin import Admin
    from kcm.batches import BatchResult
    from kcm.client import Client
    from kcm.context import ClientContext

__all__ = ["Admin", "BatchResult", "Client", "ClientContext", "Code", "KcmError"]


def __getattr__(name: str) -> Any:
    match name:
        case "Admin":
            from kcm.admin import Admin  # noqa: PLC0415 - on first use

            return Admin
        case "BatchResult":
            from kcm.batches import BatchResult  # noqa: PLC0415 - on first use

            return BatchResult
        case "Client":
            from kcm.client import Client  # noqa: PLC0415 - on first use

            return Client
        case "ClientContext":
            from kcm.context import ClientContext  # noqa: PLC0415 - on first use

            return ClientContext
        case "Code":
            from kcm_schemas.codes import Code  # noqa: PLC0415 - on first use

            return Code
        case "KcmError":
            from kcm_schemas.codes import KcmError  # noqa: PLC0415 - on first use

            return KcmError
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
