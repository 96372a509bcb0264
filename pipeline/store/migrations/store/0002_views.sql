-- What people query: the names and columns of these views, in this order, are a public contract.
-- Words that identify a person come from the other file and are NULL once erased there.

CREATE VIEW messages AS
SELECT m.mailbox, m.message_key, m.thread_id, m.split, m.window_idx, m.arrival_ordinal, m.received_at, m.date,
       sender.value AS sender, subject.value AS subject, m.n_tokens, m.bulk, m.defects
FROM message_rows AS m
LEFT JOIN bodies.people AS sender ON sender.key = m.sender_key
LEFT JOIN bodies.people AS subject ON subject.key = m.subject_key;

CREATE VIEW assignments AS
SELECT c.mailbox, c.chunk_id, c.thread_id, c.window_idx, c.split, sender.value AS sender, c.message_keys, c.n_messages,
       c.n_tokens, c.bucket, c.tier, c.sha256
FROM chunk_rows AS c
LEFT JOIN bodies.people AS sender ON sender.key = c.sender;

CREATE VIEW threads AS
SELECT t.mailbox, t.thread_id, t.split, t.first_window, m.n_messages, m.last_received_at
FROM thread_rows AS t
JOIN (
    SELECT mailbox, thread_id, count(*) AS n_messages, max(received_at) AS last_received_at
    FROM message_rows
    GROUP BY mailbox, thread_id
) AS m ON m.mailbox = t.mailbox AND m.thread_id = t.thread_id;

-- The open window of a mailbox is listed once it holds mail, with everything that its closing will settle NULL.
CREATE VIEW windows AS
SELECT c.mailbox, c.window_idx, c.opened_at, c.closed_at, c.reason, c.n_messages, s.n_chunks, s.shard_path,
       s.shard_sha256, s.event_id
FROM closings AS c
LEFT JOIN shard_rows AS s ON s.mailbox = c.mailbox AND s.window_idx = c.window_idx
UNION ALL
SELECT o.mailbox, (o.state ->> 'idx')::BIGINT, (o.state ->> 'opened_at')::TIMESTAMP, NULL, NULL,
       (o.state ->> 'n_messages')::BIGINT, NULL, NULL, NULL, NULL
FROM (SELECT mailbox, arg_max(state, rowid)::JSON AS state FROM window_states GROUP BY mailbox) AS o
WHERE (o.state ->> 'n_messages')::BIGINT > 0;

CREATE VIEW bridges AS
SELECT b.mailbox, b.message_key, b.thread_id, b.other_thread_id, b.same_split, b.at FROM bridge_rows AS b;

CREATE VIEW exclusions AS
SELECT e.mailbox, e.thread_id, e.chunk_id, e.reason, e.since_window, e.at FROM exclusion_rows AS e;

CREATE VIEW duplicates AS
SELECT d.mailbox, d.message_key, d.feed, d.cursor, d.at FROM duplicate_rows AS d;

CREATE VIEW dead_letters AS
SELECT d.id, d.mailbox, d.feed, d.cursor, d.stage, d.reason, d.attempts, d.at FROM dead_letter_rows AS d;

CREATE VIEW runs AS
SELECT q.run_id, q.mailbox, q.windows, q.parent_adapter, q.adapter_id, coalesce(e.status, 'requested') AS status,
       r.started_at, r.finished_at, r.steps, r.tokens, r.cost
FROM requests AS q
LEFT JOIN (SELECT run_id, arg_max(status, rowid) AS status FROM run_events GROUP BY run_id) AS e ON e.run_id = q.run_id
LEFT JOIN run_results AS r ON r.run_id = q.run_id;

CREATE VIEW metrics AS
SELECT m.run_id, m.adapter_id, m.checkpoint, m.split, m.window_from, m.window_to, m.metric, m.value, m.n, m.ci_low,
       m.ci_high
FROM metric_rows AS m;

CREATE VIEW losses AS
SELECT l.adapter_id, l.checkpoint, l.mailbox, l.chunk_id, l.split, l.nll, l.n_tokens, l.n_bytes, l.eval_version
FROM loss_rows AS l;

CREATE VIEW trained_on AS
SELECT t.run_id, t.adapter_id, t.mailbox, t.chunk_id, t.role, t.times FROM trained_rows AS t;

-- The journal's fold: a taint stays; the newest promotion or return of a mailbox names its champion; whoever was
-- champion before is superseded until archived; before any verdict an adapter is a candidate.
CREATE VIEW adapters AS
WITH fold AS (
    SELECT adapter_id,
           bool_or(event = 'tainted') AS tainted,
           arg_max(event, ordinal) FILTER (event IN ('promoted', 'rolled_back', 'rejected', 'failed', 'archived')) AS verdict,
           min(j.at) FILTER (event = 'promoted') AS promoted_at
    FROM journal_rows AS j
    GROUP BY adapter_id
), champion AS (
    SELECT mailbox, arg_max(adapter_id, ordinal) AS adapter_id
    FROM journal_rows
    WHERE event IN ('promoted', 'rolled_back')
    GROUP BY mailbox
)
SELECT a.adapter_id, a.mailbox, a.run_id,
       CASE
           WHEN f.tainted THEN 'tainted'
           WHEN c.adapter_id IS NOT NULL THEN 'champion'
           WHEN f.verdict IN ('promoted', 'rolled_back') THEN 'superseded'
           ELSE coalesce(f.verdict, 'candidate')
       END AS status,
       a.created_at, f.promoted_at, a.sha256, a.safety_flags
FROM adapter_rows AS a
LEFT JOIN fold AS f ON f.adapter_id = a.adapter_id
LEFT JOIN champion AS c ON c.mailbox = a.mailbox AND c.adapter_id = a.adapter_id;

CREATE VIEW journal AS
SELECT j.ordinal, j.at, j.mailbox, j.adapter_id, j.event, j.reason, j.actor FROM journal_rows AS j;
