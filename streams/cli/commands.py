"""The group of all commands, and one of them carried out: errors become one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from streams.cli import FAMILIES

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


def carry_out(arguments: list[str] | None) -> int:
    """Runs one command and returns its exit code; what failed is told in one line. Raises ``KeyboardInterrupt``."""
    from pipeline.errors import MailtideError

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
        click.echo(f"mailtide: {line}", err=True)
    return code
