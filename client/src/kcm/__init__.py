"""The SDK: ``from kcm import Client``, and the ``kcm`` command.

Names are imported when they are first used, so that ``kcm --help`` loads no network client and no
cryptography.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kcm_bus.owning import AfterFork, AlreadyConnected, Closed, Misuse, WrongLoop
    from kcm_schemas.codes import Code, KcmError
    from kcm_schemas.results import BatchFailed

    from kcm.admin import Admin
    from kcm.arguments import BadArgument, BadType, BadValue
    from kcm.batches import BatchResult
    from kcm.client import Client
    from kcm.context import ClientContext, ContextError, NotLetIn
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
    "kcm.admin": ("Admin",),
    "kcm.arguments": ("BadArgument", "BadType", "BadValue"),
    "kcm.batches": ("BatchResult",),
    "kcm.client": ("Client",),
    "kcm.context": ("ClientContext", "ContextError", "NotLetIn"),
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
    "kcm_bus.owning": ("AfterFork", "AlreadyConnected", "Closed", "Misuse", "WrongLoop"),
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
        case "kcm.admin":
            from kcm import admin as home  # noqa: PLC0415 - on first use
        case "kcm.arguments":
            from kcm import arguments as home  # noqa: PLC0415 - on first use
        case "kcm.batches":
            from kcm import batches as home  # noqa: PLC0415 - on first use
        case "kcm.client":
            from kcm import client as home  # noqa: PLC0415 - on first use
        case "kcm.context":
            from kcm import context as home  # noqa: PLC0415 - on first use
        case "kcm.errors":
            from kcm import errors as home  # noqa: PLC0415 - on first use
        case "kcm_bus.owning":
            from kcm_bus import owning as home  # noqa: PLC0415 - on first use
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
