"""``kcm encrypt`` and ``kcm decrypt``: files of any size, and chosen columns of tables."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, TypeVar

import click
from kcm_schemas.text import counted

from kcm.cli.column_options import Columns, Given, column_options
from kcm.cli.error_report import Problem, explain
from kcm.cli.input_file import INPUT, size_of, source
from kcm.cli.names import BYTES, NAME
from kcm.cli.output import note
from kcm.cli.output_file import OUTPUT, STDOUT, Sink, refuse_terminal, sink
from kcm.cli.own_input import refuse_own_input
from kcm.cli.progress import Advance, progress
from kcm.cli.settings import Settings, common_with_output, region_option, run_async
from kcm.cli.similar_names import Scope, suggest_to_user
from kcm.cli.wait_notice import RequestNotice
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm._internal.client_context import ClientContext
    from kcm.cli.columns import BadCell, Tally
    from kcm.cli.files import Target

BAD_CELLS: Final = {
    "encrypt": "correct these rows of the file, then give the same command again",
    "decrypt": "give --fields, --bind and --context-bytes as at encryption; else the cells were "
    "changed",
}
"""The hint for bad cells."""

BAD_SHOWN_MAX: Final = 100
"""Bad cells reported one by one. Further ones are only counted."""

Operation = Literal["encrypt", "decrypt"]
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Job:
    """The service key to use, the input and the output."""

    operation: Operation
    tenant: str
    service: str
    region: str | None
    file: str
    output: str
    context_bytes: str
    private: bool
    """Whether the output contains plaintext and gets mode 0600."""

    async def run(
        self,
        settings: Settings,
        work: Callable[[Target, BinaryIO, Sink, Advance], Awaitable[T]],
    ) -> T:
        """Run ``work``. An error has a name that is similar to an unknown one."""
        from kcm.errors import UnknownService, UnknownTenant

        context = settings.context()
        refuse_own_input(self.output, [self.file, *context.files])
        try:
            return await self._run(settings, context, work)
        except (UnknownService, UnknownTenant) as error:
            names: dict[Scope, str] = {"tenant": self.tenant, "service": self.service}
            place, report = context.region(self.region), explain(error)
            report = await suggest_to_user(settings, context, place, report, names)
            raise Problem.of(report) from None

    async def _run(
        self,
        settings: Settings,
        context: ClientContext,
        work: Callable[[Target, BinaryIO, Sink, Advance], Awaitable[T]],
    ) -> T:
        """Connect, open input and output, and run ``work``."""
        from kcm._internal.client import Client
        from kcm.cli.files import Target

        bound = self.bound_context()
        connect = Client.connect(
            context, self.region, opener=settings.opener, around=settings.around
        )
        with source(self.file) as reading:
            async with connect as client:
                notice = RequestNotice(settings, f"{self.operation}ion", client.region)
                target = Target(client, self.tenant, self.service, bound, notice.waiting)
                with (
                    progress(f"{self.operation}ing", size_of(reading)) as advance,
                    sink(self.output, private=self.private) as writing,
                ):
                    return await work(target, reading, writing, advance)

    def bound_context(self) -> bytes:
        """Return the user's context for the records; raises ``Problem`` if it is too long."""
        from kcm._internal.context_binding import USER_CONTEXT_MAX

        context = self.context_bytes.encode("utf-8", "surrogateescape")
        if len(context) > USER_CONTEXT_MAX:
            text = f"--context-bytes has at most {USER_CONTEXT_MAX} bytes"
            raise Problem(
                Exit.USAGE, "usage", text, "bind a shorter text, for example a digest of this one"
            )
        return context


def _shared(function: F) -> F:
    """Add the arguments and options of both commands."""
    options = (
        click.argument("file", metavar="FILE", type=INPUT),
        click.option("--tenant", type=NAME, required=True, help="The tenant of the data."),
        click.option("--service", type=NAME, required=True, help="The tenant's service."),
        region_option,
        click.option(
            "-o", "--output", metavar="FILE", type=OUTPUT, default=STDOUT, help="[default: stdout]"
        ),
        click.option(
            "--context-bytes",
            metavar="TEXT",
            type=BYTES,
            default="",
            help="Text bound to the data; decryption needs the same text.",
        ),
    )
    return functools.reduce(lambda done, option: option(done), reversed(options), function)


@click.command()
@_shared
@column_options
@click.option(
    "--record", is_flag=True, help="Write one bare record, as the SDK does (small files)."
)
@common_with_output
def encrypt(  # noqa: PLR0913, PLR0917 - one argument for each option
    settings: Settings,
    file: str,
    tenant: str,
    service: str,
    region: str | None,
    output: str,
    context_bytes: str,
    fields: str | None,
    bind: str | None,
    delimiter: str | None,
    table_format: str | None,
    *,
    record: bool,
) -> int:
    """Encrypt FILE (- is stdin), or chosen columns of it.

    \b
    Examples:
      kcm encrypt report.pdf --tenant acme --service docs -o report.kcm
      kcm encrypt people.csv --tenant acme --service crm --fields name,ssn -o people.enc.csv
    """  # noqa: D301 - click wants the control character
    from kcm.cli.files import encrypt_file, encrypt_record

    columns = Given(fields, bind, delimiter, table_format).columns(file)
    private = columns is not None  # the other columns stay in clear
    job = Job("encrypt", tenant, service, region, file, output, context_bytes, private)
    if columns is not None:
        if record:
            text = "--record writes one record, --fields many: give only one of them"
            raise Problem(Exit.USAGE, "usage", text, "leave out --record, or --fields")
        return _columns(settings, job, columns)
    refuse_terminal(output)

    async def one_record(target: Target, source: BinaryIO, sink: Sink, _: Advance) -> None:
        await encrypt_record(target, source, sink)

    run_async(job.run(settings, one_record if record else encrypt_file))
    return Exit.OK


@click.command()
@_shared
@column_options
@common_with_output
def decrypt(  # noqa: PLR0913, PLR0917 - one argument for each option
    settings: Settings,
    file: str,
    tenant: str,
    service: str,
    region: str | None,
    output: str,
    context_bytes: str,
    fields: str | None,
    bind: str | None,
    delimiter: str | None,
    table_format: str | None,
) -> int:
    """Decrypt FILE (- is stdin), or chosen columns of it.

    An output file appears only after all of it was verified. Stdout gets each verified piece at
    once: check the exit code before you use it.

    \b
    Examples:
      kcm decrypt report.kcm --tenant acme --service docs -o report.pdf
      kcm decrypt people.enc.csv --tenant acme --service crm --fields name,ssn -o people.csv
    """  # noqa: D301 - click wants the control character
    from kcm.cli.files import decrypt_file

    job = Job("decrypt", tenant, service, region, file, output, context_bytes, private=True)
    columns = Given(fields, bind, delimiter, table_format).columns(file)
    if columns is not None:
        return _columns(settings, job, columns)
    run_async(job.run(settings, decrypt_file))
    return Exit.OK


def _columns(settings: Settings, job: Job, columns: Columns) -> int:
    from kcm.cli.columns import work_table

    shown = 0

    def report(bad: BadCell) -> None:
        nonlocal shown
        shown += 1
        if shown <= BAD_SHOWN_MAX:
            place = f"row {bad.row}, {bad.field}" if bad.field else f"row {bad.row}"
            note(
                settings,
                f"{place}: {bad.detail} ({bad.code})",
                row=bad.row,
                field=bad.field,
                error=bad.code,
                detail=bad.detail,
            )

    async def work(target: Target, source: BinaryIO, sink: Sink, advance: Advance) -> Tally:
        return await work_table(target, job.operation, columns, source, sink, advance, report)

    tally = run_async(job.run(settings, work))
    text = f"{counted(tally.good, 'cell')} {job.operation}ed, {tally.bad} bad"
    lacking = {name: rows for name, rows in tally.lacking.items() if rows}
    for name, rows in lacking.items():
        do = "does" if rows == 1 else "do"
        text += f"; {rows} of {counted(tally.rows, 'row')} {do} not have {name}"
    for name, cells in tally.twice.items():
        were = counted(
            cells,
            f"cell of {name} was encrypted already, and now is",
            f"cells of {name} were encrypted already, and now are",
        )
        text += f"; {were} encrypted twice"
    hint = {"hint": BAD_CELLS[job.operation]} if tally.bad else {}
    note(
        settings,
        "; ".join([text, *hint.values()]),
        good=tally.good,
        bad=tally.bad,
        rows=tally.rows,
        lacking=lacking,
        twice=tally.twice,
        **hint,
    )
    return Exit.PARTIAL if tally.bad else Exit.OK
