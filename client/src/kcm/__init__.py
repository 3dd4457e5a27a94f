"""The SDK: ``from kcm import Client``, and the ``kcm`` command.

Names are imported when they are first used, so that ``kcm --help`` loads no network client and no
cryptography.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kcm_runtime.ownership import AfterFork, AlreadyConnected, Closed, Misuse, WrongLoop
    from kcm_schemas.codes import Code, KcmError
    from kcm_schemas.results import BatchFailed

    from kcm._internal.admin import Admin
    from kcm._internal.arguments import BadArgument, BadType, BadValue
    from kcm._internal.batches import BatchResult
    from kcm._internal.client import Client
    from kcm._internal.client_context import ClientContext, ContextError, NotLetIn
    from kcm.errors import (
        Busy,
        Conflict,
        DeadlineExceeded,
        Discarded,
        Forbidden,
        Internal,
        KeyDestroyed,
        KeyShredded,
        Malformed,
        ServiceError,
        Tampered,
        TenantKilled,
        TenantSealed,
        TooLarge,
        Unavailable,
        UnknownHold,
        UnknownLink,
        UnknownService,
        UnknownSession,
        UnknownTenant,
        Unreached,
        UntrustedReply,
        WrongRegion,
    )

    __version__: str

_HOME: Final = {
    "kcm._internal.admin": ("Admin",),
    "kcm._internal.arguments": ("BadArgument", "BadType", "BadValue"),
    "kcm._internal.batches": ("BatchResult",),
    "kcm._internal.client": ("Client",),
    "kcm._internal.client_context": ("ClientContext", "ContextError", "NotLetIn"),
    "kcm.errors": (
        "Busy",
        "Conflict",
        "DeadlineExceeded",
        "Discarded",
        "Forbidden",
        "Internal",
        "KeyDestroyed",
        "KeyShredded",
        "Malformed",
        "ServiceError",
        "Tampered",
        "TenantKilled",
        "TenantSealed",
        "TooLarge",
        "Unavailable",
        "UnknownHold",
        "UnknownLink",
        "UnknownService",
        "UnknownSession",
        "UnknownTenant",
        "Unreached",
        "UntrustedReply",
        "WrongRegion",
    ),
    "kcm_runtime.ownership": ("AfterFork", "AlreadyConnected", "Closed", "Misuse", "WrongLoop"),
    "kcm_schemas.codes": ("Code", "KcmError"),
    "kcm_schemas.results": ("BatchFailed",),
}
"""The public names, by the module that has them."""

_MODULES: Final = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Admin",
    "AfterFork",
    "AlreadyConnected",
    "BadArgument",
    "BadType",
    "BadValue",
    "BatchFailed",
    "BatchResult",
    "Busy",
    "Client",
    "ClientContext",
    "Closed",
    "Code",
    "Conflict",
    "ContextError",
    "DeadlineExceeded",
    "Discarded",
    "Forbidden",
    "Internal",
    "KcmError",
    "KeyDestroyed",
    "KeyShredded",
    "Malformed",
    "Misuse",
    "NotLetIn",
    "ServiceError",
    "Tampered",
    "TenantKilled",
    "TenantSealed",
    "TooLarge",
    "Unavailable",
    "UnknownHold",
    "UnknownLink",
    "UnknownService",
    "UnknownSession",
    "UnknownTenant",
    "Unreached",
    "UntrustedReply",
    "WrongLoop",
    "WrongRegion",
    "__version__",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:  # noqa: C901 - one case for each module
    home: Any
    match _MODULES.get(name):
        case "kcm._internal.admin":
            from kcm._internal import admin as home  # noqa: PLC0415 - on first use
        case "kcm._internal.arguments":
            from kcm._internal import arguments as home  # noqa: PLC0415 - on first use
        case "kcm._internal.batches":
            from kcm._internal import batches as home  # noqa: PLC0415 - on first use
        case "kcm._internal.client":
            from kcm._internal import client as home  # noqa: PLC0415 - on first use
        case "kcm._internal.client_context":
            from kcm._internal import client_context as home  # noqa: PLC0415 - on first use
        case "kcm.errors":
            from kcm import errors as home  # noqa: PLC0415 - on first use
        case "kcm_runtime.ownership":
            from kcm_runtime import ownership as home  # noqa: PLC0415 - on first use
        case "kcm_schemas.codes":
            from kcm_schemas import codes as home  # noqa: PLC0415 - on first use
        case "kcm_schemas.results":
            from kcm_schemas import results as home  # noqa: PLC0415 - on first use
        case _ if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - on first use

            return version("kcm")
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
