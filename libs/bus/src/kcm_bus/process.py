"""A service's process: arguments, configuration, signals, readiness, and an orderly end.

Exit codes: 0 after SIGTERM or SIGINT, 1 after a fault, 2 when the configuration cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import uvloop
from kcm_crypto.secretfile import SecretFileError
from kcm_schemas.codes import KcmError

from kcm_bus.clock import Clock, Randomness, SystemClock, SystemRandomness
from kcm_bus.config import ConfigError, InstanceConfig, load
from kcm_bus.protection import Unfit
from kcm_bus.serving import describe
from kcm_bus.streams import StreamMissing

log = logging.getLogger(__name__)

EXIT_FAULT: Final = 1
EXIT_CONFIG: Final = 2

C = TypeVar("C", bound=InstanceConfig)


class Runnable(Protocol):
    """What a process runs."""

    async def start(self) -> None:
        """Return once it serves."""

    async def close(self) -> None:
        """Finish what is in flight, and let go of everything."""


def run(name: str, model: type[C], build: Callable[[C, Clock, Randomness], Runnable]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("--config", required=True, help="the instance's TOML file")
    parser.add_argument("--check", action="store_true", help="check the configuration and end")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        config = load(model, arguments.config)
        runnable = build(config, SystemClock(), SystemRandomness())
    except (ConfigError, SecretFileError, FileNotFoundError) as error:
        log.error("%s", error)
        return EXIT_CONFIG
    if arguments.check:
        return 0
    return uvloop.run(_serve(config, runnable))


async def _serve(config: InstanceConfig, runnable: Runnable) -> int:
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
            _mark_ready(config)
            log.info("%s serves", config.instance)
            await stop.wait()
        else:
            starting.cancel()
    except (StreamMissing, Unfit, KcmError, ConfigError) as error:
        log.error("%s cannot start: %s", config.instance, error)
        return EXIT_FAULT
    except Exception as error:  # noqa: BLE001 - the last line: no traceback leaves the process
        log.error("%s cannot start: %s", config.instance, describe(error))
        return EXIT_FAULT
    finally:
        stopping.cancel()
        if config.ready_file is not None:
            config.ready_file.unlink(missing_ok=True)
        await runnable.close()
    log.info("%s ended", config.instance)
    return 0


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001 - asyncio's form
    """Log what nobody waited for. asyncio's own text shows arguments and texts of exceptions."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        log.error("a task or callback that nobody waits for failed: %s", describe(error))
    else:
        log.error("the event loop reports a fault")


def _mark_ready(config: InstanceConfig) -> None:
    if config.ready_file is not None:
        config.ready_file.write_text(f"{config.instance}\n")
