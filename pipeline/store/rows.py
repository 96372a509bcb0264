"""One frozen dataclass per table: the fields are the columns, in order. Rows are only ever appended.

Values that identify a person (addresses, names, subjects) are keyed hashes here (:mod:`pipeline.arrival.people`); the words
themselves are ``PersonRow`` and ``TextRow`` and live in ``bodies.duckdb``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Row:
    """A row of table ``TABLE`` in ``store.duckdb``, or in ``bodies.duckdb`` where ``BODIES`` is true.

    No two rows of a table agree in all columns of one of its ``KEYS``.
    """

    TABLE: ClassVar[str]
    BODIES: ClassVar[bool] = False
    KEYS: ClassVar[tuple[tuple[str, ...], ...]] = ()


@dataclass(frozen=True, slots=True)
class TextRow(Row):
    """A text by its hex sha256 (of the UTF-8 bytes)."""

    TABLE = "texts"
    BODIES = True
    KEYS = (("sha256",),)
    sha256: str
    body: str


@dataclass(frozen=True, slots=True)
class PersonRow(Row):
    """What a keyed hash stands for; ``kind`` is address, name or subject."""

    TABLE = "people"
    BODIES = True
    KEYS = (("key",),)
    key: str
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class RawRow(Row):
    """The bytes of a dead letter, by hex sha256."""

    TABLE = "raws"
    BODIES = True
    KEYS = (("sha256",),)
    sha256: str
    body: bytes


@dataclass(frozen=True, slots=True)
class MailboxRow(Row):
    TABLE = "mailbox_rows"
    KEYS = (("mailbox",),)
    mailbox: str
    clock: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FeedRow(Row):
    """A feed of a mailbox; ``source`` is where it reads from, for people."""

    TABLE = "feed_rows"
    KEYS = (("mailbox", "feed"),)
    mailbox: str
    feed: str
    kind: str
    source: str
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class MessageRow(Row):
    """One message. ``base_key`` is its Message-ID (or content hash) before ``#digest``; ``content_sha`` tells versions
    of one id apart; ``subject_norm_key`` is None unless there is a subject; ``parent_key`` is the stored message that it
    answers; ``text_sha`` and ``own_sha`` are None for an empty text; ``n_tokens`` is of the own words (full text where
    there are none) by the store's ruler."""

    TABLE = "message_rows"
    KEYS = (("mailbox", "message_key"), ("mailbox", "arrival_ordinal"))
    mailbox: str
    message_key: str
    base_key: str
    content_sha: str
    thread_id: str
    split: str
    window_idx: int
    arrival_ordinal: int
    received_at: datetime
    date: datetime | None
    sender_key: str | None
    sender_name_key: str | None
    subject_key: str | None
    subject_norm_key: str | None
    participants: tuple[str, ...]
    parent_key: str | None
    text_sha: str | None
    own_sha: str | None
    n_tokens: int
    list_id: str | None
    bulk: bool
    auto: bool
    defects: tuple[str, ...]
    feed: str
    number: int


@dataclass(frozen=True, slots=True)
class ThreadRow(Row):
    TABLE = "thread_rows"
    KEYS = (("mailbox", "thread_id"),)
    mailbox: str
    thread_id: str
    split: str
    first_window: int
    first_ordinal: int


@dataclass(frozen=True, slots=True)
class LinkRow(Row):
    """An id, seen or referenced, and the thread that the first message to name it gave it."""

    TABLE = "links"
    KEYS = (("mailbox", "id"),)
    mailbox: str
    id: str
    thread_id: str


@dataclass(frozen=True, slots=True)
class QuarantinedIdRow(Row):
    TABLE = "quarantined_ids"
    KEYS = (("mailbox", "id"),)
    mailbox: str
    id: str
    thread_id: str


@dataclass(frozen=True, slots=True)
class CorrespondentRow(Row):
    """An address seen in From, To or Cc of the mailbox, as its keyed hash."""

    TABLE = "correspondents"
    KEYS = (("mailbox", "person_key"),)
    mailbox: str
    person_key: str


@dataclass(frozen=True, slots=True)
class BridgeRow(Row):
    TABLE = "bridge_rows"
    KEYS = (("mailbox", "message_key", "other_thread_id"),)
    mailbox: str
    message_key: str
    thread_id: str
    other_thread_id: str
    same_split: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class ExclusionRow(Row):
    """A thread (``chunk_id`` None) or a single chunk that leaves evaluation and training from ``since_window`` on."""

    TABLE = "exclusion_rows"
    mailbox: str
    thread_id: str
    chunk_id: str | None
    reason: str
    since_window: int
    at: datetime


@dataclass(frozen=True, slots=True)
class DuplicateRow(Row):
    TABLE = "duplicate_rows"
    mailbox: str
    message_key: str
    feed: str
    cursor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetterRow(Row):
    """``id`` is ``{feed}/{number}`` for mail; ``raw_sha`` finds its bytes in ``raws``. For an event that a consumer refused
    it is ``{event id}@{consumer}#{attempt}``, with the topic as ``feed``, the event id as ``cursor`` and the consumer as
    ``stage``."""

    TABLE = "dead_letter_rows"
    KEYS = (("mailbox", "id"),)
    id: str
    mailbox: str
    feed: str
    cursor: str
    received_at: datetime
    stage: str
    reason: str
    attempts: int
    raw_sha: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class TakenRow(Row):
    """The owner has taken every number of a feed up to ``last_number``; the newest row of a feed counts."""

    TABLE = "taken"
    mailbox: str
    feed: str
    last_number: int
    at: datetime


@dataclass(frozen=True, slots=True)
class OwnedPartitionRow(Row):
    """A partition of a topic, one of ``partitions``, that this store alone assigns from; ``store`` is the name that it goes
    by on the broker."""

    TABLE = "owned_partitions"
    KEYS = (("cluster", "topic", "partition"),)
    cluster: str
    topic: str
    partition: int
    partitions: int
    store: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SourceOffsetRow(Row):
    """Where reading a partition goes on: all below ``next_offset`` is taken. The newest row of a partition counts."""

    TABLE = "source_offsets"
    cluster: str
    topic: str
    partition: int
    next_offset: int
    at: datetime


@dataclass(frozen=True, slots=True)
class WindowStateRow(Row):
    """The open window after a commit, as JSON of :class:`pipeline.arrival.windows.OpenWindow`; the newest row counts."""

    TABLE = "window_states"
    mailbox: str
    next_ordinal: int
    state: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ClosingRow(Row):
    """A window closed, in the transaction of the mail or tick that closed it; its shard follows."""

    TABLE = "closings"
    KEYS = (("mailbox", "window_idx"),)
    mailbox: str
    window_idx: int
    opened_at: datetime
    closed_at: datetime
    reason: str
    n_messages: int
    n_tokens: int
    last_ordinal: int


@dataclass(frozen=True, slots=True)
class ShardRow(Row):
    """The files of a closed window; ``shard_path`` is relative to the home."""

    TABLE = "shard_rows"
    KEYS = (("mailbox", "window_idx"),)
    mailbox: str
    window_idx: int
    n_chunks: int
    shard_path: str
    shard_sha256: str
    text_sha256: str
    event_id: str


@dataclass(frozen=True, slots=True)
class ChunkRow(Row):
    TABLE = "chunk_rows"
    KEYS = (("mailbox", "chunk_id"),)
    mailbox: str
    chunk_id: str
    thread_id: str
    window_idx: int
    split: str
    sender: str
    message_keys: tuple[str, ...]
    n_context: int
    n_messages: int
    n_tokens: int
    bucket: str
    tier: str
    sha256: str
    format: int


@dataclass(frozen=True, slots=True)
class MaskedRow(Row):
    """How often a kind of secret was masked in the new text of a window's chunks; no row where it never was."""

    TABLE = "masked_rows"
    KEYS = (("mailbox", "window_idx", "kind"),)
    mailbox: str
    window_idx: int
    kind: str
    n: int


@dataclass(frozen=True, slots=True)
class OutboxRow(Row):
    """An event, committed with the rows that it tells of; ``ordinal`` is its place in the store's order."""

    TABLE = "outbox"
    KEYS = (("ordinal",), ("event_id",))
    ordinal: int
    event_id: str
    topic: str
    key: str
    data: str
    at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryRow(Row):
    """One attempt to deliver an event to a consumer; ``outcome`` is done, failed, dead, or replayed, which is no attempt
    but makes an event that was dead pending again. The highest ``attempt`` of an event and consumer counts."""

    TABLE = "deliveries"
    KEYS = (("event_id", "consumer", "attempt"),)
    event_id: str
    consumer: str
    attempt: int
    outcome: str
    error: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RequestRow(Row):
    TABLE = "requests"
    KEYS = (("run_id",),)
    run_id: str
    mailbox: str
    windows: tuple[int, ...]
    parent_adapter: str | None
    adapter_id: str
    request: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RunEventRow(Row):
    """A step in a run's life: requested, finished, failed, promoted, rejected, abstained; ``detail`` is JSON."""

    TABLE = "run_events"
    run_id: str
    status: str
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RunResultRow(Row):
    """What a finished run cost; ``cost`` is in the currency of the settings."""

    TABLE = "run_results"
    KEYS = (("run_id",),)
    run_id: str
    started_at: datetime
    finished_at: datetime
    steps: int
    tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class MetricRow(Row):
    TABLE = "metric_rows"
    run_id: str
    adapter_id: str
    checkpoint: str
    split: str
    window_from: int | None
    window_to: int | None
    metric: str
    value: float
    n: int
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, slots=True)
class LossRow(Row):
    """Loss of one chunk: ``nll`` is the sum over ``n_tokens`` predicted tokens, in nats; ``n_bytes`` their text's."""

    TABLE = "loss_rows"
    KEYS = (("adapter_id", "checkpoint", "mailbox", "chunk_id", "eval_version"),)
    adapter_id: str
    checkpoint: str
    mailbox: str
    chunk_id: str
    split: str
    nll: float
    n_tokens: int
    n_bytes: int
    eval_version: int


@dataclass(frozen=True, slots=True)
class TrainedRow(Row):
    """``times`` a run trained a chunk, up to its selected checkpoint; ``role`` is new or rehearsal."""

    TABLE = "trained_rows"
    KEYS = (("run_id", "mailbox", "chunk_id", "role"),)
    run_id: str
    adapter_id: str
    mailbox: str
    chunk_id: str
    role: str
    times: int


@dataclass(frozen=True, slots=True)
class AdapterRow(Row):
    TABLE = "adapter_rows"
    KEYS = (("adapter_id",),)
    adapter_id: str
    mailbox: str
    run_id: str
    base_id: str
    parent_adapter: str | None
    created_at: datetime
    sha256: str
    safety_flags: int


@dataclass(frozen=True, slots=True)
class JournalRow(Row):
    """One event of the registry: registered, evaluated, promoted, rejected, abstained, failed, rolled_back, archived,
    tainted or erased."""

    TABLE = "journal_rows"
    KEYS = (("ordinal",),)
    ordinal: int
    at: datetime
    mailbox: str
    adapter_id: str
    event: str
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class NoticeTargetRow(Row):
    """Who is told, from when on: what the journal and the outbox held up to these ordinals is no news to ``target``."""

    TABLE = "notice_targets"
    KEYS = (("target",),)
    target: str
    journal_after: int
    outbox_after: int
    at: datetime


@dataclass(frozen=True, slots=True)
class NoticeRow(Row):
    """What became of a notice to a target, for good: ``sent``, or ``given_up`` with the last ``error``."""

    TABLE = "notice_rows"
    KEYS = (("notice_id", "target"),)
    notice_id: str
    target: str
    outcome: str
    attempts: int
    error: str
    at: datetime


@dataclass(frozen=True, slots=True)
class FeedbackRow(Row):
    """What somebody said about an answer of ``adapter_id``: ``up``, ``down``, or ``corrected`` with the better reply's text
    as ``correction_sha``. The newest row of an answer and user counts; ``user_key`` is a keyed hash, None where
    nobody is named."""

    TABLE = "feedback_rows"
    KEYS = (("feedback_id",),)
    feedback_id: str
    answer_id: str
    mailbox: str
    adapter_id: str
    user_key: str | None
    rating: str
    correction_sha: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class SpotRow(Row):
    """What ``judge`` preferred of two replies to the same mail, as shown: ``first``, ``second``, ``tie`` or ``both_bad``.
    Adapters by id, a bare base as ``base:ID``. The newest row of a reply and two adapters counts."""

    TABLE = "spot_rows"
    KEYS = (("spot_id",),)
    spot_id: str
    mailbox: str
    message_key: str
    thread_id: str
    shown_first: str
    shown_second: str
    verdict: str
    judge: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ErasureRow(Row):
    """Somebody asked to have a message, a sender or a thread (``kind``) erased; ``plan`` is JSON of ids and digests."""

    TABLE = "erasure_rows"
    KEYS = (("erasure_id",),)
    erasure_id: str
    mailbox: str
    kind: str
    plan: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ErasedRow(Row):
    """A message whose words and people are erased; its other rows stay."""

    TABLE = "erased_rows"
    KEYS = (("mailbox", "message_key"),)
    mailbox: str
    message_key: str
    erasure_id: str


@dataclass(frozen=True, slots=True)
class ErasureEndRow(Row):
    """An erasure has reached every place; ``receipt_sha256`` is of its receipt."""

    TABLE = "erasure_ends"
    KEYS = (("erasure_id",),)
    erasure_id: str
    receipt_sha256: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ReplyRow(Row):
    """Loss of one real reply in a run's sample: ``nll`` in nats over the ``n_tokens`` of its words, ``given`` being
    nothing, retrieved, random or parent, and ``mails`` the keys of what was read before."""

    TABLE = "reply_rows"
    KEYS = (("run_id", "adapter_id", "checkpoint", "message_key", "given"),)
    run_id: str
    adapter_id: str
    checkpoint: str
    mailbox: str
    message_key: str
    thread_id: str
    split: str
    given: str
    mails: tuple[str, ...]
    nll: float
    n_tokens: int
    eval_version: int


@dataclass(frozen=True, slots=True)
class WrittenRow(Row):
    """Scores of a reply as a model wrote it, at most ``n_tokens`` long, against the real one; its text is not here."""

    TABLE = "written_rows"
    KEYS = (("run_id", "adapter_id", "checkpoint", "message_key"),)
    run_id: str
    adapter_id: str
    checkpoint: str
    mailbox: str
    message_key: str
    thread_id: str
    split: str
    n_tokens: int
    rouge_l: float
    bleu: float
    exact: float
    f1: float
    repetition: float | None


@dataclass(frozen=True, slots=True)
class QuestionRow(Row):
    """What a run's search found for a reply: ``found`` are keys, best first, and ``rank`` is that of the mail it answers,
    from 1, None where it is not among them."""

    TABLE = "question_rows"
    KEYS = (("run_id", "message_key"),)
    run_id: str
    mailbox: str
    message_key: str
    thread_id: str
    split: str
    parent_key: str
    found: tuple[str, ...]
    rank: int | None
    ndcg: float
