"""Nobody hears what vendors' libraries say: an error's text or a traceback may hold a plaintext."""

from __future__ import annotations

import json
import subprocess
import sys
from textwrap import dedent


def run(script: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_child_prints_nothing():
    done = run("""
        import logging, os, warnings
        from kcm_core.providers.state import L1Error, L1State
        from kcm_core.unsealer import worker
        from kcm_core.unsealer.confinement.confine import Confinement
        from kcm_core.unsealer.frames import Ask, Operation, Request
        from kcm_core.unsealer.kinds import Kind
        from kcm_core.providers.uri import SoftkeyUri

        def talkative(uri, *, development):
            os.write(1, b"s3cret"), os.write(2, b"s3cret")
            print("s3cret", flush=True)
            logging.error("s3cret")
            warnings.warn("s3cret")
            os.read(0, 1)
            raise L1Error(L1State.DISABLED, "as it was told")

        worker.open_provider = talkative
        read, write = os.pipe()
        if os.fork() == 0:
            ask = Ask(uri="softkey:///x", context=b"", deadline_ms=30000)
            request = Request(Operation.UNWRAP, ask, memoryview(bytearray(b"blob")))
            confined = Confinement(Kind("softkey"), {})
            worker.run(request, SoftkeyUri("/x"), write, confined, development=True)
        os.close(write)
        answer = b""
        while more := os.read(read, 65536):
            answer += more
        os.wait()
        print("answered" if b"as it was told" in answer else answer)
    """)
    assert (done.stdout, done.stderr) == (b"answered\n", b"")


def test_of_what_is_logged_before_the_fork_only_our_own_is_heard():
    done = run("""
        import logging, warnings
        from kcm_core.unsealer.__main__ import log_our_own
        log_our_own()
        for name in ("botocore.credentials", "azure.identity", "google.auth", "kcm_cored"):
            logging.getLogger(name).critical("s3cret")
        warnings.warn("s3cret")
        logging.getLogger("kcm_core.providers.softkey.provider").warning("ours")
    """)
    assert done.stderr == b"unsealer WARNING kcm_core.providers.softkey.provider: ours\n"
    assert done.stdout == b""


def test_a_line_is_json_if_the_core_says_so():
    done = run("""
        import logging, os
        from kcm_core.unsealer.__main__ import log_our_own
        os.environ["KCM_LOG_FORMAT"] = "json"
        log_our_own()
        logging.getLogger("botocore.credentials").critical("s3cret")
        logging.getLogger("kcm_core.unsealer").warning("ours")
    """)
    (line,) = done.stderr.decode().splitlines()
    said = json.loads(line)
    assert (said["logger"], said["message"]) == ("kcm_core.unsealer", "ours")
