"""A process in the place of a Core: it holds MARK in memory, in its environment and in a file.

    python target.py MARK FILE NAME

It prints its process id, the address of the mark and the descriptor of the file, listens at the
abstract socket NAME, and ends when its standard input closes. Its memory is the easiest possible
to read: it may be dumped, and allows every process of its user to trace it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

PR_SET_PTRACER = 0x59616D61
PR_SET_PTRACER_ANY = ctypes.c_ulong(-1)

mark, path, name = sys.argv[1:]
signal.signal(signal.SIGURG, signal.SIG_IGN)
ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)
held = ctypes.create_string_buffer(mark.encode())
descriptor = os.open(path, os.O_RDONLY)
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(f"\0{name}")
    listening.listen()
    print(os.getpid(), ctypes.addressof(held), descriptor, flush=True)
    sys.stdin.read()
