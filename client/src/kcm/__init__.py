"""The SDK of the key manager: a client that encrypts and decrypts, and operators' requests.

A program of a tenant connects to a Gateway of its region and sends it batches of records. The
Gateway holds the data keys; the program holds none, and no root key leaves its customer's provider.
A context file names the brokers and pins the operator root: ``kcm dev up`` writes one for a
development system::

    import asyncio

    from kcm import Client, TenantKilled


    async def main() -> None:
        async with Client.connect() as client:
            rows = {b"patient 1": b"I10", b"patient 2": b"E11.9"}
            sealed = await client.encrypt(
                "clinic", "files", list(rows.values()), contexts=list(rows)
            )
            try:
                opened = await client.decrypt(
                    "clinic", "files", sealed.values, contexts=list(rows)
                )
            except TenantKilled:
                print("the customer has locked this data")
            else:
                print(opened.values)


    asyncio.run(main())

The public names, by purpose:

- to encrypt and decrypt: ``Client``, ``BatchResult``; without an event loop, ``kcm.sync.Client``;
- to find the system: ``ClientContext``;
- to open in a program what ``kcm encrypt`` made: ``cell_context``, ``piece_context``;
- to administer: ``Admin``;
- errors in general: ``KcmError`` with its ``Code``, ``ServiceError`` for refusals, ``BatchFailed``;
- refusals of the data: ``TenantKilled``, ``TenantUnavailable``, ``UnknownTenant``,
  ``UnknownService``, ``WrongRegion``, ``Forbidden``, ``Tampered``, ``Malformed``, ``TooLarge``,
  ``KeyDestroyed``, ``KeyShredded``;
- failures that may pass: ``Busy``, ``Unavailable``, ``Unreached``, ``NotAccepted``,
  ``DeadlineExceeded``, ``Discarded``, ``UnknownSession``, ``UnknownAsk``, ``Replayed``;
  ``Internal`` is a fault;
- answers to operators: ``UnknownLink``, ``UnknownApp``, ``UnknownHold``, ``Conflict``,
  ``UntrustedReply``;
- wrong arguments: ``BadArgument``, ``BadType``, ``BadValue``;
- wrong use of a client: ``Misuse``, ``WrongLoop``, ``AfterFork``, ``Closed``,
  ``AlreadyConnected``;
- a context that cannot be used: ``ContextError``, ``NotLetIn``.

A name is imported at its first use, so that ``kcm --help`` loads no network client and no
cryptography. ``docs/sdk.md`` has the details.
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
    from kcm._internal.context_binding import cell_context, piece_context
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
        NotAccepted,
        Replayed,
        ServiceError,
        Tampered,
        TenantKilled,
        TenantUnavailable,
        TooLarge,
        Unavailable,
        UnknownApp,
        UnknownAsk,
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
    "kcm._internal.context_binding": ("cell_context", "piece_context"),
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
        "NotAccepted",
        "Replayed",
        "ServiceError",
        "Tampered",
        "TenantKilled",
        "TenantUnavailable",
        "TooLarge",
        "Unavailable",
        "UnknownApp",
        "UnknownAsk",
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
"""The public names by module."""

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
    "NotAccepted",
    "NotLetIn",
    "Replayed",
    "ServiceError",
    "Tampered",
    "TenantKilled",
    "TenantUnavailable",
    "TooLarge",
    "Unavailable",
    "UnknownApp",
    "UnknownAsk",
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
    "cell_context",
    "piece_context",
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
        case "kcm._internal.context_binding":
            from kcm._internal import context_binding as home  # noqa: PLC0415 - on first use
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
