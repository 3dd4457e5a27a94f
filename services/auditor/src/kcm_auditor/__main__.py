"""Start an Auditor, or verify a journal offline.

``python -m kcm_auditor --config FILE`` records; ``--verify DIR`` verifies a journal (with
``--config`` its signatures too) and exits with 0 only if it finds no problem.
"""

from __future__ import annotations

from kcm_runtime.garbage_collection import collect_seldom

if __name__ == "__main__":
    collect_seldom()

import argparse
import asyncio
import json
import logging
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

import uvloop
from kcm_runtime import logs
from kcm_runtime.clock import SystemClock, SystemRandomness
from kcm_runtime.config import ConfigError, load
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.instance import load_instance
from kcm_runtime.nats.stream_protection import Unfit
from kcm_runtime.process import protect, report
from kcm_schemas.roster import Role
from kcm_schemas.text import counted
from kcm_trust.verify import Untrusted, Verifier, verify_roster

from kcm_auditor.config import AuditorConfig
from kcm_auditor.journal.format import Incident, IncidentKind
from kcm_auditor.journal.segments import JournalError
from kcm_auditor.journal.verify import Anchor, Report, verify
from kcm_auditor.journal.writer import Journal
from kcm_auditor.positions import Book
from kcm_auditor.service import Auditor

log = logging.getLogger("kcm_auditor")

EXIT_FAULT: Final = 1
"""The journal is not sound or cannot be written, or the broker is too old."""
EXIT_CONFIG: Final = 2
"""The configuration or the arguments are not usable."""


def main() -> int:
    """Run the command that the arguments select."""
    parser = argparse.ArgumentParser(prog="kcm_auditor", description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="the Auditor's configuration")
    parser.add_argument("--verify", metavar="DIR", type=Path, help="check a journal and exit")
    parser.add_argument(
        "--anchor", metavar="SEQ:HASH", type=_anchor, help="a head that was stored elsewhere"
    )
    parser.add_argument("--json", action="store_true", help="the result of --verify as JSON")
    parser.add_argument(
        "--accept-loss",
        metavar="REGION",
        help="continue although messages that were trimmed in REGION are not in this journal",
    )
    arguments = parser.parse_args()
    protect()
    logs.configure()
    try:
        if arguments.verify is not None:
            report = verify(arguments.verify, _verifier(arguments.config), arguments.anchor)
            (_tell_json if arguments.json else _tell)(report, checked=arguments.config is not None)
            return 0 if report.sound else EXIT_FAULT
        if arguments.config is None:
            parser.error("give --config or --verify")
        config = load(AuditorConfig, arguments.config)
        logs.configure(
            config.log.format, logs.Fields(instance=config.instance, region=config.region)
        )
        if arguments.accept_loss is not None:
            return uvloop.run(_accept_loss(config, arguments.accept_loss))
        return uvloop.run(_serve(config))
    except (ConfigError, SecretFileError) as error:
        log.error("%s", error)
        return EXIT_CONFIG
    except (JournalError, Unfit) as error:
        log.error("%s", error)
        return EXIT_FAULT


async def _serve(config: AuditorConfig) -> int:
    me = load_instance(config, Role.AUDITOR, SystemRandomness())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Auditor(config, me, SystemClock()).run(stop)
    return 0


async def _accept_loss(config: AuditorConfig, region: str) -> int:
    """Record in the journal of a stopped Auditor that its operator accepts a loss."""
    book = Book(config.instance)
    journal = Journal(config.auditor.journal, SystemClock(), book.positions)
    try:
        journal.open(lambda entry: book.restore(entry.content))
        lost = book.losses.get(region)
        if lost is None:
            sys.stderr.write(f"nothing of region {region} is missing in this journal\n")
            return EXIT_FAULT
        accepted = Incident(
            incident=IncidentKind.LOSS_ACCEPTED, region=region, first=lost[0], last=lost[1]
        )
        book.restore(accepted)
        await journal.submit([accepted])
    finally:
        await journal.close()
    sys.stdout.write(f"accepted: messages {lost[0]} to {lost[1]} of region {region} are lost\n")
    return 0


def _tell_json(report: Report, *, checked: bool) -> None:
    said = {**asdict(report), "head": f"{report.entries}:{report.head}"}
    said |= {"signatures_checked": checked, "sound": report.sound}
    said["gone"] = [asdict(one) | {"incarnation": one.incarnation.hex()} for one in report.gone]
    sys.stdout.write(json.dumps(said, indent=2) + "\n")


def _tell(report: Report, *, checked: bool) -> None:
    out = sys.stdout
    out.write(f"entries    {report.entries}\n")
    out.write(f"events     {report.events}\n")
    out.write(f"incidents  {report.incidents}\n")
    out.write(f"head       {report.entries}:{report.head}\n")
    out.write(f"signatures {'checked' if checked else 'not checked: give --config'}\n")
    out.write(f"gone       {counted(report.gone_events, 'event')}\n")
    for gone in report.gone:
        out.write(f"GONE       {gone}\n")
    for problem in report.problems:
        out.write(f"PROBLEM    {problem}\n")
    out.write("sound\n" if report.sound else "NOT SOUND\n")


def _verifier(config_path: str | None) -> Verifier | None:
    if config_path is None:
        return None
    config = load(AuditorConfig, config_path)
    try:
        return Verifier(
            verify_roster(config.roster.read_bytes(), bytes.fromhex(config.root_public), 0)
        )
    except (OSError, Untrusted):
        raise ConfigError(f"the roster {config.roster} cannot be read or verified") from None


def _anchor(text: str) -> Anchor:
    seq, _, head = text.partition(":")
    return Anchor(int(seq), bytes.fromhex(head))


if __name__ == "__main__":
    sys.exit(main())
