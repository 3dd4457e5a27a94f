"""What asyncio says of faults that nobody waited for must not show what was being worked on."""

import asyncio
import gc
import logging

from kcm_runtime.process import mark_ready, report, unmark_ready

SECRET = "5ec2e7"


async def test_a_fault_that_nobody_waits_for_is_logged_without_its_values(caplog):
    caplog.set_level(logging.ERROR, logger="kcm_runtime.process")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)

    async def fails(value):
        raise RuntimeError(value)

    def callback(value):
        raise ValueError(value)

    task = asyncio.create_task(fails(SECRET))
    await asyncio.wait({task})
    del task
    gc.collect()
    loop.call_soon(callback, SECRET)
    await asyncio.sleep(0)
    loop.call_exception_handler({"message": SECRET})
    assert "RuntimeError at fails" in caplog.text
    assert "ValueError at callback" in caplog.text
    assert "reports an error without an exception" in caplog.text
    assert SECRET not in caplog.text


def test_a_ready_file_that_cannot_be_written_ends_nobody(tmp_path):
    """A full or read-only directory must neither end who serves nor its orderly end."""
    (tmp_path / "a-file").write_text("")
    mark_ready(tmp_path / "a-file" / "ready", "core-eu-1")
    unmark_ready(tmp_path / "a-file" / "ready")
    mark_ready(tmp_path / "run" / "ready", "core-eu-1")
    assert (tmp_path / "run" / "ready").read_text() == "core-eu-1\n"
    unmark_ready(tmp_path / "run" / "ready")
    unmark_ready(tmp_path / "run" / "ready")
    assert not list((tmp_path / "run").iterdir())
