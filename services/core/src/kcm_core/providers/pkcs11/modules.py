"""The PKCS#11 modules that a Core loads: those that its operator listed, in protected files.

A URI names a module, which is loaded into a process that sees PINs and keys. So it must be on a
list, ``KCM_L1_MODULES`` in ``unsealer_environment``, separated by colons. Without a list none is
loaded: a module that happens to be installed (a spy that writes PINs to a log, a module that
connects to another machine) was not put there for the Core. A user who can write to the file, to a
directory on its path or to a link on it could replace the module. So all of these must belong to
root or to the Core's own user, and must not be writable for others.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from kcm_runtime.files.path_walk import way_to

from kcm_core.providers.pkcs11.uri import Pkcs11Uri
from kcm_core.providers.state import L1Error, L1State

VARIABLE: Final = "KCM_L1_MODULES"


def check(uri: Pkcs11Uri, allowed: str) -> None:
    """Raise ``L1Error`` (unreachable) for a module that is not on the list; it is not loaded then.

    Links are resolved on both sides of the comparison.
    """
    named = {os.path.realpath(each) for each in allowed.split(":") if each.startswith("/")}
    if os.path.realpath(uri.module_path) not in named:
        hint = f"the module is not allowed here: see {VARIABLE} of the unsealer"
        raise L1Error(L1State.UNREACHABLE, hint)


def trusted(module_path: str) -> str:
    """Return the file to load; raises ``L1Error`` if another user could have replaced it."""
    module = Path("/")
    try:
        for module in way_to(Path(module_path)):
            _check(module.lstat())
    except OSError as error:
        raise L1Error(
            L1State.UNREACHABLE, "the HSM's module is not there", cls=type(error).__name__
        ) from None
    return str(module)


def _check(info: os.stat_result) -> None:
    if info.st_uid not in {0, os.geteuid()}:
        hint = "the HSM's module, or its path, belongs neither to root nor to this user"
        raise L1Error(L1State.UNREACHABLE, hint)
    # In a sticky directory, other users' files cannot be renamed; a link has no mode.
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    if (
        not stat.S_ISLNK(info.st_mode)
        and info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and not sticky
    ):
        hint = "its group or others may write to the HSM's module or above it: chmod go-w"
        raise L1Error(L1State.UNREACHABLE, hint)
