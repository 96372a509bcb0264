"""The command that answers over HTTP: serve."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from pipeline.config.settings import Settings
    from pipeline.home import Home

NEEDED = ("fastapi", "prometheus_client", "uvicorn")


@click.command("serve", short_help="Answer over the OpenAI API, until stopped.")
@click.option("--mailbox", help="The mailbox to serve, where there are several.")
@click.option("--host", help="Address to listen on.  [default: serve.host]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 0: a free one.  [default: serve.port]")
@click.pass_obj
def serve_command(home: Home, mailbox: str | None, host: str | None, port: int | None) -> NoReturn:
    """Serve the champion of a mailbox, and what else is in memory, over the API that OpenAI's clients speak, until stopped
    (SIGTERM or Ctrl-C). Promotions and rollbacks are followed within seconds; no request is dropped for one."""
    from registry.named import the_mailbox
    from streams.cli.opening import opened, settings_of
    from streams.daemon.logs import set_up_logs
    from streams.runs.runner import require_training

    require_serving()
    require_training()
    from streams.server.running import serve
    from streams.server.tokens import tokens_of

    settings = _listening_on(settings_of(home), host, port)
    tokens_of(home, settings.serve)
    with opened(home) as store:
        name = the_mailbox(store, mailbox)
    set_up_logs(settings.daemon.log)

    def announce(address: str) -> None:
        shown = f"; callers show the token in {home.server_token}" if settings.serve.token == "required" else ""
        click.echo(f"Serving {name} at {address}{shown}")

    serve(home, settings, name, announce)


def require_serving() -> None:
    """Raises ``UsageError`` naming the packages of the serving extra that are missing."""
    from pipeline.errors import UsageError
    from pipeline.installing import install_command

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {', '.join(missing)}", hint=f"install them with `{install_command('serve')}`")


def _listening_on(settings: Settings, host: str | None, port: int | None) -> Settings:
    changed = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return settings.model_copy(update={"serve": settings.serve.model_copy(update=changed)})
