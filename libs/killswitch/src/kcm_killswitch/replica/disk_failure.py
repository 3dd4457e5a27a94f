"""Why work on a Core's disk failed, in short words that a receipt can contain."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final, Unpack

from kcm_runtime.error_text import describe
from kcm_runtime.logs import Fields, fields

from kcm_killswitch.replica.hold_store_port import Unkept

log = logging.getLogger(__name__)

_TEXT: Final = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "quota reached",
    errno.EFBIG: "file too large",
    errno.EROFS: "read only",
    errno.EIO: "disk error",
    errno.EACCES: "not permitted",
    errno.EPERM: "not permitted",
    errno.ENOENT: "directory missing",
    errno.ENOTDIR: "directory missing",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}


def failure(work: Callable[[], None], **named: Unpack[Fields]) -> Unkept | None:
    """Run disk work and return why it failed; ``None`` if it succeeded.

    An error that is not of the operating system is logged here with the named values. The caller
    reports the others.
    """
    try:
        work()
    except OSError as error:
        number = error.errno or 0
        return Unkept(_TEXT.get(number, "cannot write"), errno.errorcode.get(number, "unknown"))
    except Exception as error:  # noqa: BLE001 - keep the writer alive for later holds
        log.error(
            "an unexpected error of a write to the disk: %s",
            describe(error),
            extra=fields(**named),
        )
        return Unkept("cannot write", "unknown")
    return None
