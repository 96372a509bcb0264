"""The group of all commands, and one of them carried out: errors become one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from streams.cli import SECTIONS
from streams.cli.suggesting import remember_home, repeatable

MODULE_OF = {name: module for commands in SECTIONS.values() for name, module in commands.items()}


class Commands(click.Group):
    """Finds a command in its family's module; the attribute is ``{name}_command``. The help lists them in sections."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULE_OF)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = MODULE_OF.get(cmd_name)
        if module is None:
            return None
        command = getattr(importlib.import_module(module), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, MODULE_OF))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                found = ((name, self.get_command(ctx, name)) for name in names)
                rows = [(name.ljust(widest), command.get_short_help_str(60)) for name, command in found if command]
                formatter.write_dl(rows)


def default_home() -> Path:
    """The platform's folder for a program's data."""
    import platformdirs

    return Path(platformdirs.user_data_dir("mailtide", appauthor=False))


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MAILTIDE_HOME",
    help="Where everything is kept.  [default: MAILTIDE_HOME, else the platform's data directory]",
)
@click.version_option(package_name="mailtide", message="mailtide %(version)s")
@click.pass_context
def cli(ctx: click.Context, home: Path | None) -> None:
    """Keeps a private language model learning from a mailbox, and can say which mail made it.

    A first session: init, import PATH, plan, retrain --confirm, ask QUESTION. Each says what comes next.
    """
    from pipeline.home import Home

    remember_home(home if ctx.get_parameter_source("home") is ParameterSource.COMMANDLINE else None)
    ctx.obj = Home(_speakable((home or default_home()).expanduser().absolute()))


def _speakable(path: Path) -> Path:
    """The path, if it is text: DuckDB opens no file whose name is not."""
    from pipeline.errors import UsageError

    try:
        str(path).encode()
    except UnicodeEncodeError:
        said = os.fsencode(path).decode("utf-8", "replace")
        raise UsageError(f"the name of the home {said} is not text in UTF-8", hint="name another with --home") from None
    return path


def carry_out(arguments: list[str] | None) -> int:
    """Runs one command and returns its exit code; what failed is told in one line. Raises ``KeyboardInterrupt``."""
    from pipeline.errors import MailtideError

    remember_home(None)
    try:
        outcome: Any = cli.main(args=arguments, prog_name="mailtide", standalone_mode=False)
        code = outcome if isinstance(outcome, int) else 0
        sys.stdout.flush()
    except click.exceptions.Abort as error:
        raise KeyboardInterrupt from error
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        # The reader of our output went away; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (click.ClickException, MailtideError, OSError) as error:
        from streams.cli.failures import told

        line, code = told(error)
        click.echo(f"mailtide: {repeatable(line)}", err=True)
    return code
