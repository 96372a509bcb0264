"""The topics that mailtide keeps on a Kafka broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streams.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from pipeline.home import Home


@click.group("topics", short_help="Make and check the topics on a Kafka broker.")
def topics_command() -> None:
    """The topics that mailtide keeps on the broker of bus.brokers."""


@topics_command.command("create", short_help="Make the topics on the broker; may be repeated.")
@json_option
@click.pass_obj
def create_command(home: Home, as_json: bool) -> None:
    """Make the topics that are missing, and set retention and clean-up of all; may be repeated."""
    import asyncio

    from streams.bus.topics import create_topics, topic_specs
    from streams.cli.opening import settings_of

    settings = settings_of(home).bus
    made = asyncio.run(create_topics(settings))
    kept = [spec.name for spec in topic_specs(settings) if spec.name not in made]
    if as_json:
        print_json({"made": made, "kept": kept})
        return
    for name in made:
        click.echo(f"made {name}")
    click.echo(f"{len(made)} topics made, {len(kept)} were there")


@topics_command.command("check", short_help="Compare the topics with the settings.")
@json_option
@click.pass_obj
def check_command(home: Home, as_json: bool) -> None:
    """Compare the topics with the settings; exit code 1 when one will not do."""
    import asyncio

    from pipeline.errors import BusError
    from streams.bus.topics import next_step, topic_states
    from streams.cli.opening import settings_of

    states = asyncio.run(topic_states(settings_of(home).bus))
    columns = ("topic", "partitions", "cleanup", "problem")
    found = [(state.spec.name, state.partitions, state.cleanup, state.problem) for state in states]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in found])
    else:
        print_table(columns, found)
    wanting = [state for state in states if state.problem]
    if wanting:
        raise BusError(f"{len(wanting)} of {len(states)} topics will not do", hint=next_step(wanting))


@topics_command.command("asyncapi", short_help="Print what travels on them, as an AsyncAPI document.")
@json_option
def asyncapi_command(as_json: bool) -> None:
    """Print what travels on the topics, as an AsyncAPI 3.0 document in YAML."""
    from streams.asyncapi import document

    if as_json:
        print_json(document())
        return
    import yaml

    click.echo("# Made from the models by `mailtide topics asyncapi`.")
    click.echo(yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=120), nl=False)
