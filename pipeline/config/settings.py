"""Every setting, with its one default and what it means. Reading them is :mod:`pipeline.config.configuration`'s work."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, field_validator, model_validator

from pipeline.arrival.cron import next_moment
from pipeline.config.bus_settings import BusSettings, DaemonSettings, ParseSettings
from pipeline.config.deploy_settings import DeploySettings
from pipeline.config.feed_settings import FeedSettings
from pipeline.config.gate_settings import LeastSettings, LimitSettings
from pipeline.config.groups import Group, Share
from pipeline.config.index_settings import IndexSettings
from pipeline.config.notice_settings import NotifySettings
from pipeline.config.server_settings import ServeSettings
from pipeline.config.tier_settings import TierCaps, TierWeights
from pipeline.domain import Clock
from pipeline.runs.selection import parse_thresholds, parse_weights

MAILBOX_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
MEETING_PLACE = re.compile(r"\S+:\d{1,5}\Z")


class SplitSettings(Group):
    """Shares of threads per split. Frozen with the store."""

    train: Share = Field(default=0.8, description="trained on")
    val: Share = Field(default=0.1, description="may choose: early stop, checkpoint, gate")
    test: Share = Field(default=0.1, description="only reported")

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSettings:
        total = self.train + self.val + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train + val + test must be 1, not {total:g}")
        return self


class MailboxSettings(Group):
    """One mailbox: whose it is and what times its windows."""

    owner: tuple[str, ...] = Field(default=(), description="addresses of the mailbox's owner")
    lists: tuple[str, ...] = Field(default=(), description="addresses of mailing lists that arrive here")
    feeds: tuple[FeedSettings, ...] = Field(default=(), description="where its mail comes from while the daemon runs")
    clock: Clock = Field(default=Clock.ARRIVAL, description="arrival, or header to replay an archive as if live; frozen")


class WindowSettings(Group):
    """When a training window closes: at whichever comes first."""

    bootstrap: PositiveInt = Field(default=200, description="mails window 0 needs before it may close")
    count: PositiveInt | None = Field(default=50, description="mails")
    age: PositiveFloat | None = Field(default=7.0, description="days since the window's first mail")
    cron: str | None = Field(default=None, description="five-field cron expression, UTC")
    tokens: PositiveInt | None = Field(default=None, description="tokens by the ruler")
    rolling: PositiveInt = Field(default=1, description="windows taken as new by a run, the newest trained ones again")

    @field_validator("cron")
    @classmethod
    def _cron_has_moments(cls, expression: str | None) -> str | None:
        if expression is not None:
            next_moment(expression, datetime(2000, 1, 1))
        return expression


class ChunkSettings(Group):
    """How threads are cut into training examples. Frozen with the store."""

    size: PositiveInt = Field(default=100, description="new messages per chunk at most")
    overlap: int = Field(default=10, ge=0, description="earlier messages repeated as context at most")
    max_tokens: int = Field(default=2048, ge=128, description="tokens per chunk at most, by the ruler")
    ruler: str = Field(default="bytes", description="bytes (UTF-8 bytes / 4), or the path of a tokenizer.json")


class ReplayCaps(Group):
    """Rehearsal chunks per length bucket at most."""

    short: int = Field(default=500, ge=0, description="below 512 tokens")
    medium: int = Field(default=300, ge=0, description="below 1,024 tokens")
    long: int = Field(default=200, ge=0, description="below 2,048 tokens")
    verylong: int = Field(default=100, ge=0, description="the rest")


class ReplaySettings(Group):
    """What earlier mail a run trains on again."""

    strategy: Literal["windows", "uniform", "stratified", "none"] = Field(
        default="windows", description="windows (in turns), uniform, stratified (by sender and thread), or none"
    )
    ratio: float = Field(default=0.5, ge=0.0, description="rehearsal tokens per new token in an epoch (1:2)")
    max_share: Share = Field(default=0.34, description="rehearsal tokens of the whole at most")
    min_per_stratum: int = Field(default=2, ge=0, description="chunks each sender/thread gives in phase 1 at most")
    caps: ReplayCaps = ReplayCaps()
    tier_caps: TierCaps = Field(
        default_factory=dict, description="by quality tier: share at most of its tokens beside those of tiers without a cap"
    )
    tier_weights: TierWeights = Field(
        default_factory=dict, description="by quality tier: how often it is rehearsed, others being 1; 0: it is not used"
    )
    max_rehearsal: PositiveInt = Field(default=1000, description="rehearsal chunks in a manifest at most")
    max_new_windows: PositiveInt = Field(default=20, description="windows a run takes as new at most, the newest")


class BuiltinModel(Group):
    """Shape and training budget of the built-in model; used only with ``model.base: builtin``."""

    vocabulary: int = Field(
        default=4096, ge=258, description="byte-level BPE tokens: 256 bytes, two of control, and merges"
    )
    width: PositiveInt = Field(default=192, description="hidden size, a multiple of twice the heads")
    layers: PositiveInt = Field(default=4, description="transformer blocks")
    heads: PositiveInt = Field(default=6, description="attention heads")
    context: PositiveInt = Field(default=1024, description="tokens")
    base_tokens: PositiveInt = Field(default=400_000, description="tokens the base is trained on, once")
    base_lr: PositiveFloat = Field(default=3e-3, description="peak learning rate of the base")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> BuiltinModel:
        """Rotary positions turn pairs of a head's dimensions, so each head needs an even number of them."""
        if self.width % (2 * self.heads):
            fitting = [heads for heads in range(1, self.width // 2 + 1) if self.width % (2 * heads) == 0]
            nearest = min(fitting, key=lambda heads: abs(heads - self.heads), default=None)
            would_do = f"heads={nearest} would do" if nearest else "it must be even"
            raise ValueError(f"width {self.width} is not a multiple of twice the {self.heads} heads; {would_do}")
        return self


class ModelSettings(Group):
    """What is trained."""

    base: str = Field(default="builtin", description="builtin, a local path, or a Hub id")
    revision: str | None = Field(default=None, description="Hub revision")
    objective: Literal["cpt", "reply"] = Field(
        default="cpt", description="cpt: the thread's new text; reply: the owner's replies, given the thread so far"
    )
    init_from: Literal["champion", "fresh"] = Field(default="champion", description="what a run continues")
    quantize: bool = Field(default=True, description="NF4 with double quantisation")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = Field(
        default="auto", description="kernels of a run: auto (torch's own), sdpa, flash_attention_2 (needs a GPU), eager"
    )
    kernels: Literal["torch", "liger"] = Field(
        default="torch", description="norms and activations of a run: torch, or liger (fused; needs a GPU, extra liger)"
    )
    context: PositiveInt | None = Field(default=None, description="cut examples to this many tokens; default: the model's")
    allow_download: bool = Field(default=False, description="let the Hub be asked for a base that is not on this disk")
    builtin: BuiltinModel = BuiltinModel()


class RetrySettings(Group):
    """What a run does that improves too little: it trains again, with another learning rate, and keeps the best attempt."""

    attempts: int = Field(default=0, ge=0, description="further attempts at most; 0: off")
    threshold: float = Field(default=0.01, ge=0.0, description="nats per token below what it continues that are enough")
    factor: PositiveFloat = Field(default=0.5, description="of the learning rate, for each further attempt")


class TrainSettings(Group):
    """How it is trained."""

    epochs: PositiveInt = Field(default=2, description="times every new chunk is trained")
    batch_tokens: PositiveInt = Field(default=4096, description="tokens per batch at most, by the ruler, padding included")
    pass_tokens: PositiveInt | None = Field(
        default=None, description="tokens of a batch in the model at once; default: all on a GPU, 512 on a CPU"
    )
    accumulation: PositiveInt = Field(default=1, description="batches per optimizer step")
    lr: PositiveFloat = Field(default=2e-3, description="peak learning rate of the adapter, re-warmed per run")
    warmup: Share = Field(default=0.1, description="share of the steps")
    weight_decay: float = Field(default=0.0, ge=0.0, description="of AdamW")
    clip: PositiveFloat = Field(default=1.0, description="gradient norm")
    lora_r: PositiveInt = Field(default=16, description="rank")
    lora_alpha: PositiveInt = Field(default=32, description="scale, twice the rank by custom")
    lora_dropout: Share = Field(default=0.0, description="share of inputs dropped before the adapter")
    lora: dict[str, JsonValue] = Field(default_factory=dict, description="further fields of PEFT's LoraConfig, by name")
    optimizer: str = Field(default="auto", description="auto: paged 8-bit AdamW on GPU, fused AdamW on CPU")
    checkpoint_every: PositiveInt = Field(default=50, description="optimizer steps; the end is always one")
    keep_checkpoints: PositiveInt = Field(default=5, description="newest kept on disk while a run goes on")
    checkpoint_gib: PositiveFloat | None = Field(
        default=None, description="GiB that a run's checkpoints may take, oldest go first; default: keep_checkpoints alone"
    )
    patience: int = Field(default=3, ge=0, description="evaluations without improvement before stopping; 0 never stops")
    min_delta: float = Field(default=0.0, ge=0.0, description="nats per token that count as improvement")
    retry: RetrySettings = RetrySettings()
    gradient_checkpointing: bool | None = Field(default=None, description="default: on a GPU only")
    threads: PositiveInt | None = Field(default=None, description="CPU threads; default: torch's own choice")
    keep_sets: int = Field(default=3, ge=0, description="newest runs whose training set is kept beside them; 0: none")
    token_cache_gib: float = Field(
        default=0.5, ge=0.0, description="GiB of tokenised mail kept for later runs, all mailboxes together; 0: none"
    )
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        default=(), description="tensorboard (in runs/ID/tensorboard), wandb (offline unless WANDB_MODE says otherwise)"
    )
    processes: PositiveInt = Field(default=1, description="that share each step on this machine, one per GPU")
    machines: PositiveInt = Field(default=1, description="that share each step, with so many processes each (docs/gpu.md)")
    address: str | None = Field(default=None, description="host:port of the first machine, where several meet")
    shard: bool = Field(default=False, description="each process holds a part of the model while it trains (FSDP)")

    @model_validator(mode="after")
    def _processes_have_what_they_need(self) -> TrainSettings:
        if self.shard and self.together == 1:
            raise ValueError("shard needs processes or machines above 1, to share the model out to")
        if self.machines > 1 and not MEETING_PLACE.match(self.address or ""):
            raise ValueError("machines above 1 need address, as host:port of the first")
        return self

    @property
    def together(self) -> int:
        """Processes on all machines."""
        return self.processes * self.machines


class EvalSettings(Group):
    """What is measured, and how much of it."""

    max_chunks: PositiveInt = Field(default=400, description="chunks per split at most, new windows apart")
    batch_tokens: PositiveInt = Field(default=8192, description="tokens per evaluation batch at most")
    retrieval_queries: PositiveInt = Field(default=300, description="queries per split at most")
    max_replies: int = Field(
        default=12, ge=0, description="replies per split whose loss is measured with mail given; 0: none"
    )
    rag_k: PositiveInt = Field(default=3, description="mails given with a reply")
    rag_tokens: PositiveInt = Field(default=512, description="tokens of mail given at most")
    generate: int = Field(default=4, ge=0, description="replies per split that are written and compared with the real ones")
    generate_tokens: PositiveInt = Field(default=24, description="tokens of a written reply at most")
    latency: int = Field(default=0, ge=0, description="answers timed side by side with the champion's; 0: none")
    benchmarks: tuple[str, ...] = Field(
        default=(), description="regression tasks, by name, or as task files and folders; none: nothing is measured"
    )
    select: Literal["val_loss", "weighted", "pareto"] = Field(
        default="val_loss", description="what chooses the checkpoint: val_loss, weighted or pareto"
    )
    weights: str = Field(default="ppl:0.4,rag:0.4,recall:0.2", description="what counts how much for weighted")
    thresholds: str = Field(default="", description="what a checkpoint must keep to be chosen, e.g. ppl<=40,rag<=4.5")

    @field_validator("weights")
    @classmethod
    def _weights_are_readable(cls, text: str) -> str:
        parse_weights(text)
        return text

    @field_validator("thresholds")
    @classmethod
    def _thresholds_are_readable(cls, text: str) -> str:
        parse_thresholds(text)
        return text


class GateSettings(Group):
    """The policy of promotion; losses in nats per token, lower is better."""

    max_loss: float = Field(default=0.03, ge=0.0, description="how much worse on old windows may be, upper 95 % bound")
    max_drift: float = Field(default=0.06, ge=0.0, description="the same against the best untainted adapter ever")
    min_new_threads: PositiveInt = Field(default=5, description="val threads of the new windows below which it abstains")
    min_threads: PositiveInt = Field(default=20, description="val threads below which an interval is marked as few")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="of the one-sided bounds")
    confidence_better: float = Field(
        default=0.7, ge=0.5, lt=1.0, description="that it is better on new windows; 0.5: in the mean"
    )
    limits: LimitSettings = LimitSettings()
    least: LeastSettings = LeastSettings()
    require: tuple[str, ...] = Field(default=(), description="rules of gate.limits without whose evidence it abstains")

    @model_validator(mode="after")
    def _requires_rules(self) -> GateSettings:
        unknown = [name for name in self.require if name not in LimitSettings.model_fields]
        if unknown:
            known = ", ".join(LimitSettings.model_fields)
            raise ValueError(f"require names rules that cannot be computed: {', '.join(unknown)} (there are {known})")
        unlimited = [name for name in self.require if getattr(self.limits, name) is None]
        if unlimited:
            raise ValueError(f"require names {', '.join(unlimited)}, for which limits sets nothing")
        return self


class PrivacySettings(Group):
    """What is masked before a chunk is written. Frozen with the store."""

    mask_credentials: bool = Field(default=True, description="passwords, keys and tokens become [masked:KIND]; frozen")
    mask_personal: tuple[Literal["card", "iban", "id", "phone", "email"], ...] = Field(
        default=(), description="personal data that becomes [masked:KIND]: any of card, iban, id, phone, email; frozen"
    )
    detectors: tuple[Literal["detect-secrets"], ...] = Field(
        default=(),
        description="whose forms are masked beside our own: detect-secrets (extra secrets); frozen, with version",
    )
    canaries: int = Field(
        default=0, ge=0, le=100, description="numbers planted per window, to see what later adapters remember; frozen"
    )

    @model_validator(mode="after")
    def _detectors_add_to_our_own(self) -> PrivacySettings:
        if self.detectors and not self.mask_credentials:
            raise ValueError("detectors need mask_credentials, which they add to")
        return self


class CostSettings(Group):
    """What an hour of training costs, and how much of that there may be."""

    per_hour: float = Field(default=0.0, ge=0.0, description="price of an hour of one GPU, or of the machine without one")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="of the price, as three letters")
    cap: PositiveFloat | None = Field(
        default=None, description="what runs may cost in 30 days; one that would exceed it is refused before it starts"
    )

    @model_validator(mode="after")
    def _a_cap_needs_a_price(self) -> CostSettings:
        if self.cap is not None and not self.per_hour:
            raise ValueError("cap needs per_hour, the price that runs are held against")
        return self


class PlanSettings(Group):
    """What a plan is held against."""

    gpu_gib: PositiveFloat | None = Field(
        default=None, description="memory of the GPU that trains, where it is not in this machine"
    )


class Settings(Group):
    """All settings of a home."""

    seed: int = Field(default=0, ge=0, description="of splits and of every sampled thing; frozen")
    mailboxes: dict[str, MailboxSettings] = Field(
        default_factory=dict, description="per name: owner, lists (addresses), feeds, clock (arrival or header)"
    )
    split: SplitSettings = SplitSettings()
    window: WindowSettings = WindowSettings()
    chunk: ChunkSettings = ChunkSettings()
    replay: ReplaySettings = ReplaySettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    gate: GateSettings = GateSettings()
    deploy: DeploySettings = DeploySettings()
    privacy: PrivacySettings = PrivacySettings()
    cost: CostSettings = CostSettings()
    notify: NotifySettings = NotifySettings()
    plan: PlanSettings = PlanSettings()
    index: IndexSettings = IndexSettings()
    parse: ParseSettings = ParseSettings()
    bus: BusSettings = BusSettings()
    daemon: DaemonSettings = DaemonSettings()
    serve: ServeSettings = ServeSettings()
    auto_retrain: bool = Field(default=False, description="retrain without --confirm")

    @model_validator(mode="after")
    def _mailbox_names(self) -> Settings:
        wrong = [name for name in self.mailboxes if not MAILBOX_NAME.match(name)]
        if wrong:
            raise ValueError(f"mailbox names are [a-z0-9][a-z0-9._-]{{0,63}}, not {', '.join(map(repr, wrong))}")
        return self

    def mailbox(self, name: str) -> MailboxSettings:
        """The settings of a mailbox, the defaults where it is not listed."""
        return self.mailboxes.get(name, MailboxSettings())
