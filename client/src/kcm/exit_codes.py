"""Exit codes: what a script may rely on."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

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
  1    unexpected fault, or one of this machine: a full disk, say
  2    wrong usage, a file that may not be used, or a context that cannot be used
  3    refused by the service
  4    a part of a batch failed, the rest is done
  5    unavailable or out of time; a retry may help
  6    the hold is in force, but not everybody has confirmed it
  7    a check failed: a file, an answer or a journal is not to be believed
  129  ended by SIGHUP
  130  interrupted (Ctrl-C)
  141  whoever read the output ended first, as in `| head`: nothing is said of it
  143  ended by SIGTERM; by another signal 128 and its number
"""
"""The codes as ``kcm --help`` shows them."""
