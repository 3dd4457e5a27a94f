"""The process of a component: arguments, configuration, signals, readiness, orderly end.

Exit codes: 0 after SIGTERM or SIGINT, 1 after a fault, 2 if the configuration is not usable.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import uvloop
from kcm_schemas.codes import KcmError

from kcm_runtime import logs
from kcm_runtime.clock import Clock, SystemClock
from kcm_runtime.config import ConfigError, InstanceConfig, load
from kcm_runtime.error_text import describe
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.hardening import make_undumpable
from kcm_runtime.logs import Fields, fields
from kcm_runtime.nats.jetstream_errors import StreamMissing
from kcm_runtime.nats.stream_protection import Unfit

log = logging.getLogger(__name__)

EXIT_FAULT: Final = 1
EXIT_CONFIG: Final = 2

C = TypeVar("C", bound=InstanceConfig)


class Runnable(Protocol):
    """A component that a process runs."""

    async def start(self) -> None:
        """Return once it serves."""

    async def close(self) -> None:
        """Finish the work in progress, and release everything."""


def run(name: str, model: type[C], build: Callable[[C, Clock], Runnable]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("--config", required=True, help="the instance's TOML file")
    parser.add_argument("--check", action="store_true", help="check the configuration and end")
    arguments = parser.parse_args()
    logs.configure()
    protect()
    try:
        config = load(model, arguments.config)
        named = Fields(instance=config.instance, region=config.region)
        logs.configure(config.log.format, named)
        runnable = build(config, SystemClock())
    except (ConfigError, SecretFileError, FileNotFoundError) as error:
        log.error("%s", error)
        return EXIT_CONFIG
    if arguments.check:
        return 0
    return uvloop.run(_serve(config, runnable))


def protect() -> None:
    """Forbid dumps and tracing of this process; raises ``OSError``. Before any secret is read."""
    make_undumpable()


async def _serve(config: InstanceConfig, runnable: Runnable) -> int:
    named = fields(instance=config.instance, region=config.region)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    starting = loop.create_task(runnable.start())
    stopping = loop.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            mark_ready(config.ready_file, config.instance)
            log.info("serves", extra=named)
            await stop.wait()
        else:
            starting.cancel()
    except (StreamMissing, Unfit, KcmError, ConfigError) as error:
        log.error("cannot start: %s", error, extra=named)
        return EXIT_FAULT
    except Exception as error:  # noqa: BLE001 - the last line: no traceback leaves the process
        log.error("cannot start: %s", describe(error), extra=named)
        return EXIT_FAULT
    finally:
        stopping.cancel()
        unmark_ready(config.ready_file)
        await runnable.close()
    log.info("ended", extra=named)
    return 0


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001 - asyncio's form
    """Log unhandled exceptions of tasks. The text of asyncio would show arguments and messages."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        log.error("unhandled exception in a task or callback: %s", describe(error))
    else:
        log.error("the event loop reports an error without an exception")


def mark_ready(path: Path | None, text: str) -> None:
    """Write the ready file; an error is logged, because the process serves without it, too."""
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        except OSError as error:
            log.error(
                "cannot write the ready file: %s", error.strerror, extra=fields(path=str(path))
            )


def unmark_ready(path: Path | None) -> None:
    """Remove the ready file; never raises, because the orderly end comes after it."""
    if path is not None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.error(
                "cannot remove the ready file: %s", error.strerror, extra=fields(path=str(path))
            )
