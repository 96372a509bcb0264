"""Commands that look back: what an adapter was made from, down to messages, what a message made, and who served when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pipeline.ranges import ranges
from streams.cli.output import json_option, print_json, print_table
from streams.documents import plain

if TYPE_CHECKING:
    from pipeline.home import Home
    from pipeline.store import Store
    from registry.lineage import Lineage
    from registry.reigns import Served

mailbox_option = click.option("--mailbox", help="The mailbox, where there are several.")


class Moment(click.ParamType):
    """A time as ISO 8601, in UTC unless it names an offset; a date alone is its last instant."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no ISO 8601 time, e.g. 2026-03-01T12:00", param, ctx)
        if len(value) == len("2026-03-01"):
            moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_999)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


@click.command("lineage", short_help="Show what an adapter was made from.")
@click.argument("adapter_id", required=False)
@click.option("--messages", is_flag=True, help="Every message it learned from, too.")
@click.option("--message", "message_key", metavar="KEY", help="Instead: who learned from this message.")
@mailbox_option
@json_option
@click.pass_obj
def lineage_command(
    home: Home, adapter_id: str | None, messages: bool, message_key: str | None, mailbox: str | None, as_json: bool
) -> None:
    """Show what ADAPTER_ID (the champion by default) was made from, down to windows, shards and messages; or, the other
    way, which adapters learned from a message.
    """
    from pipeline.errors import UsageError
    from registry.lineage import learners, lessons, lineage
    from registry.named import the_mailbox
    from streams.cli.opening import opened

    with opened(home) as store:
        if message_key is not None:
            if adapter_id is not None or messages:
                raise UsageError(
                    "--message KEY asks who learned from a message", hint="leave ADAPTER_ID and --messages out"
                )
            name = the_mailbox(store, mailbox)
            found = learners(store, name, _stored_key(store, name, message_key))
        else:
            line = lineage(store, adapter_id or _champion(store, the_mailbox(store, mailbox)))
            taught = lessons(store, line.steps[0].adapter_id) if messages else []
    if message_key is not None:
        if as_json:
            print_json(found)
        elif found:
            rows = [(one.adapter_id, "itself" if one.itself else "through its parent", one.as_context) for one in found]
            print_table(("adapter", "learned", "as context only"), rows)
        else:
            click.echo("No adapter learned from it.")
    elif as_json:
        print_json({**plain(line), "messages": taught} if messages else line)
    else:
        _tell_line(line)
        if messages:
            read = [(one.message_key, one.chunk_id, one.adapter_id, one.role, one.times, one.as_context) for one in taught]
            print_table(("message", "chunk", "trained by", "as", "times", "as context only"), read)


def _tell_line(line: Lineage) -> None:
    print_table(
        ("adapter", "run", "windows", "new chunks", "rehearsed", "shards"),
        [
            (
                step.adapter_id,
                step.run_id,
                ranges(step.windows),
                step.new_chunks,
                step.rehearsed_chunks,
                "of another home" if step.imported else tuple(shard.shard_sha256[:12] for shard in step.shards),
            )
            for step in line.steps
        ],
    )
    click.echo(f"Base {line.base_id}")


def _stored_key(store: Store, mailbox: str, given: str) -> str:
    """The key of a message, given as it is or as a Message-ID in angle brackets."""
    from pipeline.arrival.identity import id_key
    from pipeline.errors import UsageError

    for key in (given, id_key(given)):
        if store.scalar("SELECT count(*) FROM message_rows WHERE mailbox = ? AND message_key = ?", [mailbox, key]):
            return key
    raise UsageError(f"{mailbox} has no message {given}", hint="a key is what the view messages says")


def _champion(store: Store, mailbox: str) -> str:
    from pipeline.errors import NothingToDo

    adapter_id = store.scalar("SELECT adapter_id FROM adapters WHERE mailbox = ? AND status = 'champion'", [mailbox])
    if adapter_id is None:
        raise NothingToDo(f"{mailbox} has no champion yet", hint="name an adapter, see `mailtide registry list`")
    return str(adapter_id)


@click.command("at", short_help="Tell which adapter was champion at a time.")
@click.argument("time", type=Moment())
@mailbox_option
@json_option
@click.pass_obj
def at_command(home: Home, time: datetime, mailbox: str | None, as_json: bool) -> None:
    """Tell which adapter was champion at TIME, from when to when, and what began and ended that."""
    from pipeline.store.rows import JournalRow
    from registry.named import the_mailbox
    from registry.reigns import all_served, how, served_at
    from streams.cli.opening import opened

    with opened(home) as store:
        name = the_mailbox(store, mailbox)
        rows = store.fetch(JournalRow, order="ordinal")
    served, first = served_at(rows, name, time), next(iter(all_served(rows, name)), None)
    if as_json:
        print_json({"mailbox": name, "time": time, **_reign(served, first)})
        return
    begun = f"from {served.since:%Y-%m-%d %H:%M:%S} ({how(served.begun_by)}) " if served else ""
    following = served.ended_by if served else first.begun_by if first else None
    ended = f"until {following.at:%Y-%m-%d %H:%M:%S} ({following.adapter_id} {how(following)})" if following else "on"
    champion = served.adapter_id if served else None
    click.echo(f"{champion or f'{name} had no champion, the bare base answered'}, {begun}{ended}, UTC")


def _reign(served: Served | None, first: Served | None) -> dict[str, Any]:
    """A reign for programs; None is the time before the first one."""
    if served is None:
        following = first.begun_by if first else None
        until = first.since if first else None
        return {"champion": None, "since": None, "until": until, "begun_by": None, "ended_by": following}
    return {
        "champion": served.adapter_id,
        "since": served.since,
        "until": served.until,
        "begun_by": served.begun_by,
        "ended_by": served.ended_by,
    }
