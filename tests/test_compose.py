"""The Compose files and the Dockerfile, as far as they can be checked where no container engine runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from pipeline.config.configuration import load
from streams.cli.commands import cli
from tests.conftest import REPOSITORY
from tests.support.compose_schema import compose_schema

COMPOSE = REPOSITORY / "docker-compose.yml"
GPU = REPOSITORY / "docker-compose.gpu.yml"
DOCKERFILE = REPOSITORY / "Dockerfile"

ONE_SHOT = {"setup"}
OTHERS = {"broker", "weaviate"}
ROLES = ("feed", "parse", "assign", "train", "deploy")

INSTRUCTIONS = {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "ARG", "USER", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
EXACT = re.compile(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*\Z")
"""An image by a whole version; ``latest`` and ``3.11`` may be another one tomorrow."""


def read(path: Path) -> dict[str, Any]:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(COMPOSE)["services"]
    assert set(found) == {*ROLES, *ONE_SHOT, *OTHERS}
    return found


@pytest.mark.parametrize("path", [COMPOSE, GPU], ids=lambda path: path.name)
def test_the_file_is_what_the_compose_specification_asks_for(path: Path) -> None:
    schema = compose_schema()
    validator = jsonschema.validators.validator_for(schema)(schema)
    tree = read(path)
    assert [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(tree)] == []
    wrong = {**tree, "services": {**tree["services"], "train": {"imagee": "x"}}}
    assert not validator.is_valid(wrong), "a schema that lets a misspelt key pass checks nothing"


def test_every_command_is_one_that_the_program_takes() -> None:
    found = {}
    for name, service in services().items():
        if name not in ONE_SHOT | OTHERS:
            context, role = parsed(service["command"])
            assert context.info_name == "run"
            found[name] = role
            parsed(service["healthcheck"]["test"][2:])
            assert service["healthcheck"]["test"][:2] == ["CMD", "mailtide"]
    assert found == {role: role for role in ROLES}
    (script,) = services()["setup"]["command"]
    lines = [line.split("||")[-1].strip() for line in script.splitlines() if "mailtide " in line]
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("mailtide ")
        parsed(shlex.split(line)[1:])


def parsed(arguments: list[str]) -> tuple[click.Context, str | None]:
    """A command line as the program understands it, and the role in it; raises for what the program would refuse."""
    context: click.Context = click.Context(cli)
    command: click.Command = cli
    while isinstance(command, click.Group) and arguments:
        name, child, arguments = command.resolve_command(context, arguments)
        assert child is not None and name is not None
        command = child
        if isinstance(child, click.Group) and arguments:
            context = click.Context(child, parent=context, info_name=name)
        else:
            context = child.make_context(name, list(arguments), parent=context)
    role = context.params.get("role", context.params.get("roles"))
    return context, role[0] if isinstance(role, tuple) else role


def test_every_role_of_the_program_has_its_service() -> None:
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    (option,) = [one for one in run.params if "--role" in one.opts]
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) - {"all"} == set(ROLES)
    assert services()["parse"]["deploy"]["replicas"] == 2


def test_every_variable_is_a_setting() -> None:
    seen = 0
    for name, service in services().items():
        variables = {key: value for key, value in service["environment"].items() if key.startswith("MAILTIDE_")}
        assert all(isinstance(value, str) for value in service["environment"].values()), "YAML must not guess at types"
        settings = load(None, environment=variables)
        if name not in OTHERS:
            seen += 1
            assert settings.bus.kind == "kafka"
            assert settings.bus.brokers == "broker:19092"
    assert seen == len(ROLES) + len(ONE_SHOT)


def test_the_settings_that_setup_starts_from_are_settings() -> None:
    (mounted,) = [volume for volume in services()["setup"]["volumes"] if "settings.yaml" in volume]
    default = re.match(r"\$\{\w+:-(?P<path>[^}]+)\}:", mounted)
    assert default is not None
    load(REPOSITORY / default["path"], environment={})


def test_ports_are_on_loopback_only() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert not any(service.get("network_mode") == "host" for service in services().values())


def test_what_stays_is_watched_restarted_and_ends_in_time() -> None:
    for name, service in services().items():
        if name in ONE_SHOT:
            assert service["restart"] == "on-failure"
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
        if name in ROLES:
            assert int(service["stop_grace_period"].removesuffix("s")) > 10, "a clean stop may take 10 s"
            assert service["depends_on"]["setup"] == {"condition": "service_completed_successfully"}


def test_images_are_pinned_and_what_is_built_is_a_stage() -> None:
    stages = {stage for stage, _ in from_lines()}
    for path in (COMPOSE, GPU):
        for name, service in read(path)["services"].items():
            assert EXACT.match(service["image"]), f"{name}: {service['image']}"
            if "build" in service:
                assert service["build"]["target"] in stages
                assert service["image"].endswith(f"-{service['build']['target']}")


def test_roles_run_without_privileges() -> None:
    for name in (*ROLES, *ONE_SHOT):
        service = services()[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert "home:/var/lib/mailtide" in service["volumes"]
        assert not service.get("privileged") and "user" not in service


def test_no_secret_stands_in_the_file_and_nothing_reports_home() -> None:
    for name, service in services().items():
        for key, value in service["environment"].items():
            if re.search(r"PASSWORD|SECRET|TOKEN|_KEYS\b|API_KEY\b", key):
                assert value.startswith("${"), f"{name}: {key}"
    assert services()["weaviate"]["environment"]["DISABLE_TELEMETRY"] == "true"
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    for file in services()["feed"]["env_file"]:
        assert f"/{file['path']}" in ignored
    assert "/.env" in ignored


def test_named_volumes_are_declared_and_used() -> None:
    named = {
        volume.partition(":")[0]
        for service in services().values()
        for volume in service.get("volumes", ())
        if re.match(r"[a-z]+:", volume)
    }
    assert named == set(read(COMPOSE)["volumes"])


# The Dockerfile


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]
    assert {word for word, _ in found} <= INSTRUCTIONS
    return found


def from_lines() -> list[tuple[str, str]]:
    """The stages, each with what it starts from."""
    found = []
    for word, rest in instructions():
        if word == "FROM":
            base, separator, stage = rest.partition(" AS ")
            assert separator, f"a stage without a name: {rest}"
            found.append((stage, base))
    return found


def stage_instructions(stage: str) -> list[tuple[str, str]]:
    """Those of a stage, and before them those of the stages that it stands on."""
    bases = dict(from_lines())
    before = stage_instructions(bases[stage]) if bases[stage] in bases else []
    own: list[tuple[str, str]] = []
    current = ""
    for word, rest in instructions():
        if word == "FROM":
            current = rest.partition(" AS ")[2]
        elif current == stage:
            own.append((word, rest))
    return [*before, *own]


def test_stages_stand_on_pinned_images_or_on_earlier_stages() -> None:
    seen: set[str] = set()
    for stage, base in from_lines():
        assert base in seen or EXACT.match(base), f"{stage} stands on {base}"
        seen.add(stage)
    assert {"light", "cpu", "cuda"} <= seen
    copied = {
        rest.split()[0].removeprefix("--from=") for word, rest in instructions() if "--from=" in rest and word == "COPY"
    }
    assert copied == {"built-light", "built-cpu", "built-cuda"}


@pytest.mark.parametrize("target", ["light", "cpu", "cuda"])
def test_a_target_runs_mailtide_as_nobody_in_particular(target: str) -> None:
    found = stage_instructions(target)
    users = [rest for word, rest in found if word == "USER"]
    assert users and all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users), (
        "a number, so that it is known not to be root"
    )
    assert ("ENTRYPOINT", '["mailtide"]') in found
    assert ("STOPSIGNAL", "SIGTERM") in found
    assert not any("pip" in rest for word, rest in found if word == "RUN"), "what builds does not travel along"


def test_every_package_is_installed_by_the_constraints() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    commands = [part for rest in installs for part in re.split(r"&&|;", rest) if "pip install" in part]
    assert len(commands) == 4
    assert all("--constraint constraints.txt" in command for command in commands)
    extras = {extra for command in commands for extra in re.findall(r"\[([\w,]+)\]", command)}
    known = re.findall(r"^(\w+) = \[", (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert extras and {name for group in extras for name in group.split(",")} <= set(known)


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for word, rest in instructions() if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]
    }
    assert copied == sent
    assert all((REPOSITORY / name).exists() for name in copied)
