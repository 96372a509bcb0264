"""The order in which a manifest lists chunks, and which it leaves out, as one SQL over a few narrow tables.

``source`` has a row per candidate, ``lineage`` how often chunks were rehearsed, ``new_windows`` and ``caps`` what their
names say, and ``limits`` (:func:`pipeline.chunking.tier_limits.limits`) is there where quality tiers count. Parameters:
``seed``, ``room`` for the longest chunk that can be rehearsed, and ``most`` chunks.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.settings import ReplaySettings

_ELIGIBLE = """
WITH candidates AS (
    SELECT source.*, window_idx IN (SELECT window_idx FROM new_windows) AS is_new,
           coalesce(times, 0)::INTEGER AS rehearsed, md5_number($seed || ':' || chunk_id) AS hash
    FROM source LEFT JOIN lineage USING (chunk_id)
), eligible AS (
    SELECT {columns} FROM candidates {weighed}
    WHERE is_new OR (n_tokens <= $room AND bucket IN (SELECT bucket FROM caps WHERE cap > 0))
)"""

# Due is who has the least of (times rehearsed, then a place drawn between this time and the next) by weight: twice the
# weight is rehearsed twice as often. With equal weights that is the order by (times rehearsed, hash).
_DUE = "candidates.*, ((rehearsed::HUGEINT << 32) + (hash >> 96)::HUGEINT) * unit // weight AS due"
_WEIGHED = "JOIN limits USING (tier)"

_TURNS = """, in_thread AS (
    SELECT {kept}, sender, row_number() OVER (PARTITION BY is_new, sender, thread_id ORDER BY {due}) AS thread_turn
    FROM eligible
), ordered AS MATERIALIZED (
    SELECT {kept}, row_number() OVER (PARTITION BY is_new, sender ORDER BY thread_turn, {due}) AS turn
    FROM in_thread
)"""

_WINDOW_TURNS = """, ordered AS MATERIALIZED (
    SELECT {kept}, row_number() OVER (PARTITION BY is_new, window_idx ORDER BY {due}) AS turn
    FROM eligible
)"""

_ONE_TURN = """, ordered AS MATERIALIZED (SELECT {kept}, 1 AS turn FROM eligible)"""

# A chunk of a tier with a cap waits until enough tokens of the tiers without one stand before it, and is left out where
# they never do; so the cap holds at every place of the order. Without mail of other tiers there is nothing to protect.
_BALANCED = """, running AS (
    SELECT ordered.*, part IS NOT NULL AS capped,
           sum(CASE WHEN part IS NULL THEN n_tokens ELSE 0 END)
               OVER (PARTITION BY is_new ORDER BY turn, {due}) AS others,
           sum(CASE WHEN part IS NULL THEN n_tokens ELSE 0 END) OVER (PARTITION BY is_new) AS others_in_all,
           (sum(n_tokens) OVER (PARTITION BY is_new, tier ORDER BY turn, {due}) * rest + part - 1) // part AS needed
    FROM ordered JOIN limits USING (tier)
), placed AS (
    SELECT running.*, CASE WHEN capped THEN uncapped.others ELSE running.others END AS stands
    FROM running ASOF LEFT JOIN (SELECT is_new, others FROM running WHERE NOT capped) AS uncapped
        ON running.is_new = uncapped.is_new AND greatest(running.others, running.needed) <= uncapped.others
), balanced AS MATERIALIZED (
    SELECT {kept}, row_number() OVER (PARTITION BY is_new ORDER BY stands, capped, turn, {due}) AS turn
    FROM placed WHERE stands IS NOT NULL OR others_in_all = 0
)"""

_CAPPED = """
    UNION ALL
    (SELECT * FROM {ordered} WHERE NOT is_new AND bucket = '{bucket}' ORDER BY turn, {due} LIMIT {cap})"""

_RANKED = """, chosen AS (
    SELECT * FROM {ordered} WHERE is_new{capped}
)
SELECT place, is_new, rehearsed, row_number() OVER (PARTITION BY is_new ORDER BY turn, {due}) AS rank
FROM chosen QUALIFY is_new OR rank <= $most ORDER BY is_new DESC, rank
"""


def ranking(replay: ReplaySettings, caps: Mapping[str, int], *, tiers: bool) -> str:
    """The SQL: ``place`` of a candidate, whether it ``is_new``, how often it was ``rehearsed``, and its ``rank`` from 1
    within its role. ``tiers`` says that caps and weights of quality tiers count."""
    kept = "place, is_new, bucket, rehearsed, hash" + (", due, tier, n_tokens" if tiers else "")
    due = "due, hash" if tiers else "rehearsed, hash"
    ordered = "balanced" if tiers else "ordered"
    turns = {"uniform": _ONE_TURN, "windows": _WINDOW_TURNS}.get(replay.strategy, _TURNS)
    capped = "".join(_CAPPED.format(bucket=bucket, cap=cap, due=due, ordered=ordered) for bucket, cap in caps.items())
    return (
        _ELIGIBLE.format(columns=_DUE if tiers else "*", weighed=_WEIGHED if tiers else "")
        + turns.format(kept=kept, due=due)
        + (_BALANCED.format(kept=kept, due=due) if tiers else "")
        + _RANKED.format(capped=capped, due=due, ordered=ordered)
    )
