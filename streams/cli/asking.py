"""Commands that answer: ask, sql, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table
from streams.documents import plain

if TYPE_CHECKING:
    from pipeline.home import Home


@click.command("ask", short_help="Answer a question from the mailbox, citing mails.")
@click.argument("question")
@click.option("--mailbox", help="The mailbox to ask, where there are several.")
@click.option("--adapter", "adapter_id", help="Answer with this adapter.  [default: the champion, else the bare base]")
@click.option("-k", "count", type=click.IntRange(1, 50), default=5, show_default=True, help="Mails to cite at most.")
@click.option("--generate", is_flag=True, help="Let the built-in model write, too.")
@json_option
@click.pass_obj
def ask_command(
    home: Home,
    question: str,
    mailbox: str | None,
    adapter_id: str | None,
    count: int,
    generate: bool,
    as_json: bool,
) -> None:
    """Answer QUESTION from the mailbox, citing the mails used."""
    from pipeline.errors import UsageError
    from registry.answer import answer
    from registry.named import the_mailbox
    from streams.answering import search_of, write_answer
    from streams.cli.answers import tell_answer
    from streams.cli.opening import opened, settings_of

    if not question.strip():
        raise UsageError("the question is empty", hint="ask in words that the mails would use")
    settings = settings_of(home)
    with opened(home) as store:
        name = the_mailbox(store, mailbox)
    search = search_of(home, settings, name)
    with opened(home) as store:
        found = answer(store, home, name, question, count, search)
        writer = write_answer(store, home, settings, name, found, adapter_id, generate=generate)
    written = writer.write() if writer is not None and found.citations else None
    if as_json:
        text, notice = (written.text, written.notice or None) if written else (None, None)
        left_out = len(found.citations) - written.read if written else 0
        by = writer.by if writer else None
        print_json({**plain(found), "left_out": left_out, "written": text, "notice": notice, "by": by})
    else:
        tell_answer(found, written=written, by=writer.by if writer else "")


@click.command("sql", short_help="Run one SELECT, read-only, over the views.")
@click.argument("query")
@click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Rows at most.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Time at most.")
@json_option
@click.pass_obj
def sql_command(home: Home, query: str, limit: int, seconds: float, as_json: bool) -> None:
    """Run one SELECT or EXPLAIN, read-only, over the views (docs/architecture.md lists them)."""
    from pipeline.errors import UsageError
    from pipeline.store.export import VIEWS
    from streams.cli.opening import opened

    with opened(home) as store:
        try:
            result = store.answer_sql(query, row_limit=limit, seconds=seconds)
        except UsageError as error:
            hint = f"give one SELECT over the views {', '.join(VIEWS)}"
            if "olumn" in error.message:
                hint = """list a view's columns with `mailtide sql "DESCRIBE messages"`"""
            raise UsageError(error.message, hint=error.hint or hint) from error
    if as_json:
        print_json([dict(zip(result.columns, row, strict=True)) for row in result.rows])
    else:
        print_table(result.columns, result.rows)
    if result.truncated:
        click.echo(f"Only the first {limit:,} rows: there are more (--limit).", err=True)


@click.command("export", short_help="Write a whole view to a file.")
@click.argument("view")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "json", "parquet"]),
    default="csv",
    show_default=True,
    help="What kind of file.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="The file.  [default: VIEW.FORMAT]")
@click.pass_obj
def export_command(home: Home, view: str, kind: str, output: Path | None) -> None:
    """Write a whole view to a file."""
    from pipeline.errors import MailtideError
    from pipeline.store.export import export_view
    from streams.cli.opening import opened

    path = (output or Path(f"{view}.{kind}")).absolute()
    with opened(home) as store:
        try:
            count = export_view(store, view, kind, path)
        except OSError as error:
            raise MailtideError(
                f"{path} cannot be written: {error.strerror}", hint="name another file with --output"
            ) from error
    click.echo(f"{count:,} rows to {path}")
