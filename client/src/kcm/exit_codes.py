"""Exit codes of the ``kcm`` command, which scripts can rely on."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The result of a command."""

    OK = 0
    FAULT = 1
    USAGE = 2
    REFUSED = 3
    PARTIAL = 4
    UNAVAILABLE = 5
    NOT_COMPLETE = 6
    CHECK_FAILED = 7
    INTERRUPTED = 130
    READER_GONE = 141


HELP = """\b
Exit codes:
  0    done
  1    unexpected fault, or a fault of this machine, for example a full disk
  2    wrong usage, or a file or context that cannot be used
  3    refused by a component; also data that cannot be decrypted (tampered)
  4    a part of a batch failed, the rest is done
  5    unavailable or out of time; a retry may help
  6    the hold is in force, but not every instance has confirmed it
  7    a check here failed: of a file's form, evidence, a reply, a journal, a machine
  129  ended by SIGHUP
  130  interrupted (Ctrl-C)
  141  the reader of the output ended first, as in `| head`; no message is shown
  143  ended by SIGTERM; by another signal 128 and its number
"""
"""The exit codes as ``kcm --help`` shows them."""
