"""What the next retrain would do, what it would take, and whether it fits, without doing any of it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from pipeline.arrival.people import PeopleKey
from pipeline.capacity.bases import CONFIG, folder_here, not_here, require_usable
from pipeline.capacity.footprint import Device
from pipeline.capacity.room import Asked, Fit, Lengths, Room, find_room
from pipeline.capacity.shapes import Shape, builtin_shape, shape_of
from pipeline.config.settings import Settings
from pipeline.domain import Split
from pipeline.errors import RunError
from pipeline.home import Home
from pipeline.installing import install_command
from pipeline.ranges import ranges
from pipeline.runs.plan import SCHEDULE, Plan, plan_run
from pipeline.runs.requests import RESULT, RunRequest, read_result
from pipeline.runs.runfiles import Exclusions
from pipeline.sampling.halves import selecting_threads
from pipeline.sampling.objectives import read_examples
from pipeline.sampling.replay import read_schedule
from pipeline.store import Store
from pipeline.store.rows import ExclusionRow, RequestRow
from streams.runs.bases import champion_elsewhere, require_kept_base
from streams.runs.claims import NothingToLearn, Windows, draft, last_failure, undecided
from streams.runs.devices import training_device
from streams.runs.lora import require_continuable, require_known_fields

BUILTIN_TOKENS, OTHER_TOKENS = 1.8, 1.25
"""Tokens of a model per token of the ruler ``bytes``, on mail: measured for the built-in vocabulary of 4,096; a large
vocabulary reads 3 to 3.5 bytes at a time where headers, code and quotation marks are many."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a finished run on the same base showed: ruler tokens per second while it trained, the seconds of all else but
    the making of the base, and tokens of the model per token of the ruler."""

    tokens_per_second: float
    seconds_beside: float
    model_tokens: float


def plan_next(store: Store, home: Home, settings: Settings, mailbox: str, windows: Windows) -> Plan:
    """The plan of the undecided request, else of the one that a claim would write now. Raises ``NothingToDo``."""
    begun = undecided(store, mailbox)
    request = begun or draft(store, home, settings, mailbox, windows)
    rows = store.fetch(ExclusionRow, "mailbox = ?", [mailbox])
    exclusions = Exclusions.of((row.thread_id, row.chunk_id, row.reason) for row in rows)
    earlier = measured(store, home, request)
    rate, beside = (earlier.tokens_per_second, earlier.seconds_beside) if earlier else (None, 0.0)
    plan = plan_run(home, request, exclusions, tokens_per_second=rate, seconds_beside=beside, cost=settings.cost)
    failure = last_failure(store, request)
    if failure is not None:
        plan = replace(plan, failed=str(failure))
    elsewhere = champion_elsewhere(store, home, request)
    if elsewhere is not None:
        begins = f"champion {elsewhere.adapter_id} stands on another base, {elsewhere.base.base_id} ({elsewhere.base.path})"
        plan = replace(plan, begins=begins)
    elif request.parent is None and request.champion is not None:
        left = sorted(set(request.old_windows) - set(request.new_windows))
        rest = f"; its windows {ranges(left)} are not trained again" if left else ""
        begins = f"model.init_from is fresh, so champion {request.champion.adapter_id} is not continued{rest}"
        plan = replace(plan, begins=begins)
    if begun is None and not _trains_elsewhere(settings):
        plan = replace(plan, refused=tuple(map(str, _obstacles(store, home, settings, request))))
    plan = replace(plan, unchosen=_unchosen(home, request, exclusions), owner=owner_mails(store, home, settings, request))
    shape = shape_of_base(request)
    if shape is None:
        return plan
    tokens = earlier.model_tokens if earlier else _guessed_tokens(request, settings)
    plan = replace(plan, too_long=_too_long(request, shape, round(plan.longest_chunk * tokens)))
    return replace(plan, room=room_of(request, plan, shape, tokens, training_device(settings)))


def require_room(store: Store, home: Home, settings: Settings, mailbox: str, windows: Windows) -> None:
    """Raises ``RunError`` when a claim now would ask for a run that cannot fit the device, naming what would, or whose base
    or parent is not there, not whole or not of use.

    A run that was claimed already is left alone: its settings are fixed. So is the device of one whose trainer may be
    another machine of a broker's, unless ``plan.gpu_gib`` says what that has. Raises ``NothingToDo`` where a claim would,
    and ``NothingToLearn`` where the run would have nothing to train on.
    """
    if undecided(store, mailbox) is not None:
        return
    here = not _trains_elsewhere(settings)
    for obstacle in _obstacles(store, home, settings, draft(store, home, settings, mailbox, windows)) if here else ():
        raise obstacle
    plan = plan_next(store, home, settings, mailbox, windows)
    if plan.nothing:
        raise NothingToLearn(plan.nothing, hint=next_step(plan), newest=plan.windows[-1])
    room = plan.room if here else None
    if room is not None and room.fit is Fit.NOT:
        gib = 1 << 30
        cure = f"set {', '.join(room.changes)}" if room.changes else "choose a smaller model.base or another device"
        raise RunError(
            f"training would take about {room.needed / gib:.1f} GiB, and {room.device} has {room.memory / gib:.1f} GiB, "
            "too little for the longest chunk alone",
            hint=cure,
        )


def next_step(plan: Plan) -> str:
    """What to do about a plan that has nothing to train on."""
    if plan.owner and not any(count for _, count in plan.owner):
        named = ", ".join(address for address, _ in plan.owner)
        query = '`mailtide sql "SELECT sender, count(*) FROM messages GROUP BY 1 ORDER BY 2 DESC"`'
        return (
            f"no mail of {plan.mailbox} is from {named}: set mailboxes.{plan.mailbox}.owner to addresses as mails bear "
            f"them ({query} lists those)"
        )
    return "wait for the next window"


def owner_mails(store: Store, home: Home, settings: Settings, request: RunRequest) -> tuple[tuple[str, int], ...]:
    """The owner's addresses as the settings name them, where replies are learned, and how many mails of each there are."""
    if not request.owner:
        return ()
    key = PeopleKey.read(home.people_key)
    named = {address: key.of("address", address.strip().lower()) for address in settings.mailbox(request.mailbox).owner}
    marks = ", ".join("?" for _ in request.owner)
    counts = dict(
        store.query(
            f"SELECT sender_key, count(*) FROM message_rows WHERE mailbox = ? AND sender_key IN ({marks}) GROUP BY 1",
            [request.mailbox, *request.owner],
        )
    )
    return tuple((address, int(counts.get(hashed, 0))) for address, hashed in named.items() if hashed in request.owner)


def _too_long(request: RunRequest, shape: Shape, longest: int) -> str:
    """That a chunk of ``longest`` tokens of the model exceeds what it reads at once; "" where none does."""
    own, asked = shape.context, request.settings.model.context
    context = min(filter(None, (own, asked)), default=longest)
    if longest <= context:
        return ""
    more = f", or model.context up to {own:,}" if context < own else ""
    return (
        f"the longest chunk takes about {longest:,} tokens of this model, which reads {context:,}; what exceeds that is "
        f"left out. A home made with a smaller chunk.max_tokens{more} avoids it"
    )


def _unchosen(home: Home, request: RunRequest, exclusions: Exclusions) -> str:
    """Why no checkpoint is chosen and nothing stops early, where the settings ask for that; "" where val can spare threads
    to choose by."""
    train, least = request.settings.train, request.settings.min_threads
    if not (train.patience or train.retry.attempts):
        return ""
    threads: set[str] = set()
    for shard in request.shards:
        table = read_examples(home, request, shard, columns=("chunk_id", "thread_id", "split"))
        held = table.filter(pc.equal(table["split"], Split.VAL.value)).to_pylist()
        threads |= {row["thread_id"] for row in held if not exclusions.hold(row["thread_id"], row["chunk_id"])}
        if selecting_threads(threads, least) is not None:
            return ""
    off = [name for name, on in (("train.patience", train.patience), ("train.retry", train.retry.attempts)) if on]
    return (
        f"the last is taken, and {' and '.join(off)} {'do' if len(off) > 1 else 'does'} nothing: val holds "
        f"{len(threads)} threads, and from {2 * least} on (twice gate.min_threads) half of them may choose"
    )


def _trains_elsewhere(settings: Settings) -> bool:
    return settings.bus.kind == "kafka" and settings.plan.gpu_gib is None


def _obstacles(store: Store, home: Home, settings: Settings, request: RunRequest) -> Iterator[RunError]:
    """Why the run that ``request`` asks for could not begin here, the room that it takes apart."""
    looked_at: tuple[Callable[[], None], ...] = (
        lambda: _require_base(request),
        lambda: require_kept_base(store, home, request),
        lambda: require_known_fields(settings.train),
        lambda: require_continuable(home, request),
        lambda: _require_trackers(settings.train.report_to),
        lambda: require_attention(settings),
        lambda: require_kernels(settings),
    )
    for look in looked_at:
        try:
            look()
        except RunError as error:
            yield error


def _require_trackers(names: Sequence[str]) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        extra = [install_command("tracking")] if "tensorboard" in missing else []
        commands = [*extra, *(["pip install wandb"] if "wandb" in missing else [])]
        raise RunError(
            f"train.report_to asks for {', '.join(missing)}, not installed here",
            hint=f"install with `{' && '.join(commands)}`, or take it out of train.report_to",
        )


def require_attention(settings: Settings) -> None:
    """Raises ``RunError`` when ``model.attention`` asks for kernels that the device that trains cannot run."""
    if settings.model.attention != "flash_attention_2":
        return
    lacking = [] if training_device(settings).gpu else ["a GPU"]
    if importlib.util.find_spec("flash_attn") is None:
        lacking.append("the package flash-attn")
    if lacking:
        raise RunError(
            f"model.attention asks for FlashAttention, and {' and '.join(lacking)} for it is not here",
            hint="set model.attention to auto; on a GPU torch's own kernels are of that kind, too",
        )


def require_kernels(settings: Settings) -> None:
    """Raises ``RunError`` when ``model.kernels`` asks for what the device that trains, or this installation, has not."""
    if settings.model.kernels == "torch":
        return
    lacking = [] if training_device(settings).gpu else ["a GPU"]
    installed = importlib.util.find_spec("liger_kernel") is not None
    if not installed:
        lacking.append("the package liger-kernel")
    if lacking:
        install = "" if installed else f"; on a machine with a GPU, `{install_command('liger')}`"
        raise RunError(
            f"model.kernels asks for Liger's, and {' and '.join(lacking)} for them is not here",
            hint=f"set model.kernels to torch{install}",
        )


def _require_base(request: RunRequest) -> None:
    """What may be fetched, whole or the rest of it, is looked at when it is here."""
    if request.base.kind == "builtin":
        return
    model = request.settings.model
    folder = folder_here(request.base.path, model.revision)
    if model.allow_download and not Path(request.base.path).expanduser().is_dir():
        return
    if folder is None:
        raise not_here(request.base.path)
    require_usable(folder, model.objective)


def room_of(request: RunRequest, plan: Plan, shape: Shape, tokens: float, device: Device) -> Room:
    """The memory of a planned run, ``tokens`` of the model making one of the ruler."""
    asked = Asked(
        model=request.settings.model,
        train=request.settings.train,
        evaluate=request.settings.eval,
        builtin=request.base.kind == "builtin",
        continues=request.parent is not None,
    )
    lengths = Lengths(batch=round(plan.largest_batch * tokens), chunk=round(plan.longest_chunk * tokens))
    return find_room(shape, asked, lengths, device)


def shape_of_base(request: RunRequest) -> Shape | None:
    """The shape of the request's base, by its settings or its ``config.json``; None where that is not on this disk or is of
    no kind that can be estimated."""
    if request.base.kind == "builtin":
        return builtin_shape(request.settings.model.builtin)
    folder = folder_here(request.base.path, request.settings.model.revision)
    if folder is None:
        return None
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({error})", hint="check model.base") from error
    return shape_of(config)


def measured(store: Store, home: Home, request: RunRequest) -> Measured | None:
    """From the newest finished run of the mailbox on the same base; None before the first."""
    finished = store.query(
        'SELECT run_id FROM requests WHERE mailbox = ? AND run_id IN (SELECT run_id FROM run_results) ORDER BY "at" DESC',
        [request.mailbox],
    )
    for (run_id,) in finished:
        (row,) = store.fetch(RequestRow, "run_id = ?", [run_id])
        earlier = RunRequest.model_validate_json(row.request)
        folder = home.run(run_id)
        if earlier.base == request.base and (folder / RESULT).is_file():
            result = read_result(folder)
            trained = read_schedule(folder / SCHEDULE).trained(result.steps, earlier.settings.train.accumulation)
            tokens = pc.sum(trained["n_tokens"]).as_py() or 0
            training = result.seconds.get("train", 0.0)
            beside = sum(value for stage, value in result.seconds.items() if stage not in ("base", "train"))
            return Measured(tokens / training, beside, result.tokens / tokens) if tokens and training else None
    return None


def _guessed_tokens(request: RunRequest, settings: Settings) -> float:
    if settings.chunk.ruler != "bytes":
        return 1.0
    return BUILTIN_TOKENS if request.base.kind == "builtin" else OTHER_TOKENS
