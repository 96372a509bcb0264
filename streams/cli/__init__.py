"""The ``mailtide`` command: one module per family of commands, loaded only when one of them is called.

Modules here import nothing heavy at their top, so that ``mailtide --help`` stays instant; each command imports
what it needs when it runs.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

FAMILIES: dict[str, tuple[str, ...]] = {
    "streams.cli.mail": ("init", "import", "parse", "close", "windows"),
    "streams.cli.training": ("plan", "retrain", "runs"),
    "streams.cli.simulate": ("simulate",),
    "streams.cli.adapters": ("registry",),
    "streams.cli.asking": ("ask", "sql", "export"),
    "streams.cli.aside": ("deadletters", "quarantine"),
    "streams.cli.topics": ("topics",),
    "streams.cli.daemon": ("run",),
    "streams.cli.machine": ("status", "doctor", "demo"),
}
MODULE_OF = {name: module for module, names in FAMILIES.items() for name in names}


class Commands(click.Group):
    """Finds a command in its family's module; the attribute is ``{name}_command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULE_OF)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = MODULE_OF.get(cmd_name)
        if module is None:
            return None
        command = getattr(importlib.import_module(module), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command


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
    """Keeps a private language model learning from a mailbox, and can say which mail made it."""
    from pipeline.home import Home

    ctx.obj = Home((home or default_home()).expanduser().absolute())


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and ends the process with its exit code: 0 done, 1 failed, 2 wrong usage, 3 nothing to do."""
    from pipeline.errors import MailtideError

    try:
        outcome: Any = cli.main(args=arguments, prog_name="mailtide", standalone_mode=False)
        code = outcome if isinstance(outcome, int) else 0
        sys.stdout.flush()
    except click.exceptions.Abort:
        click.echo("mailtide: interrupted; the same command continues where it stopped", err=True)
        code = 130
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
        click.echo(f"mailtide: {line}", err=True)
    sys.exit(code)
