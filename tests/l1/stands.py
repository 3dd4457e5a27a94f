"""Every provider's stand: a cloud's server of our own, SoftHSM, a softkey, or a real account."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from kcm_core.providers.softkey import provider as softkey
from kcm_core.providers.state import L1State

from tests.integration import softhsm
from tests.l1.stand import Stand, admission

Make = Callable[[Path], AbstractContextManager[Stand]]


@contextmanager
def _softkey(directory: Path) -> Iterator[Stand]:
    softkey.create(directory)
    yield Stand(
        name="softkey",
        uri=f"softkey:{directory}",
        environment={"KCM_DEVELOPMENT": "1"},
        directory=directory,
        states=frozenset(L1State) - {L1State.INVALID},
    )


@dataclass(frozen=True, slots=True)
class _Hsm(Stand):
    """A key in SoftHSM: its attributes are its state."""

    def put(self, state: L1State) -> None:
        hsm = softhsm.SoftHsm(self._directory)
        match state:
            case L1State.ENABLED:
                hsm.run("enable", LABEL)
            case L1State.DISABLED:
                hsm.run("disable", LABEL)
            case _:
                hsm.run("destroy", LABEL)


LABEL: Final = "root"


@contextmanager
def _pkcs11(directory: Path) -> Iterator[Stand]:
    hsm = softhsm.make(directory)
    hsm.run("create-aes", LABEL)
    yield _Hsm(
        name="pkcs11",
        uri=hsm.uri(LABEL),
        environment=hsm.environment,
        directory=directory,
        states=frozenset({L1State.ENABLED, L1State.DISABLED, L1State.DELETED}),
    )


@contextmanager
def _account(_: Path) -> Iterator[Stand]:
    # Who names a softkey here knows that it is one.
    environment = {"KCM_DEVELOPMENT": "1", **os.environ}
    yield Stand(name="account", uri=os.environ["KCM_L1_URI"], environment=environment)


CLOUDS: Final = ("awskms", "azurekv", "gcpkms")

MADE: Final[dict[str, Make]] = {
    **{name: partial(admission, name) for name in CLOUDS},
    "pkcs11": _pkcs11,
    "softkey": _softkey,
}
"""Every provider's stand; each is made in a directory that does not exist yet."""

USED: Final[dict[str, Make]] = {"account": _account} if "KCM_L1_URI" in os.environ else MADE
"""Those that the conformance suite runs against."""
