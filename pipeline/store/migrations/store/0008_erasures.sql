-- What people asked to have erased: the plan of each erasure, the messages that it takes, and its end. An erased message
-- keeps its place, its ids and its split; its words and people are read from the other file no more, even where somebody
-- else's mail brings the same ones there again.

CREATE TABLE erasure_rows (
    erasure_id VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    plan VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE erased_rows (
    mailbox VARCHAR NOT NULL,
    message_key VARCHAR NOT NULL,
    erasure_id VARCHAR NOT NULL
);

CREATE TABLE erasure_ends (
    erasure_id VARCHAR NOT NULL,
    receipt_sha256 VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TRIGGER erasure_rows_no_update BEFORE UPDATE ON erasure_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('erasure_rows is append-only')::INTEGER;
CREATE TRIGGER erasure_rows_no_delete BEFORE DELETE ON erasure_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('erasure_rows is append-only')::INTEGER;
CREATE TRIGGER erased_rows_no_update BEFORE UPDATE ON erased_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('erased_rows is append-only')::INTEGER;
CREATE TRIGGER erased_rows_no_delete BEFORE DELETE ON erased_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('erased_rows is append-only')::INTEGER;
CREATE TRIGGER erasure_ends_no_update BEFORE UPDATE ON erasure_ends FOR EACH STATEMENT
    INSERT INTO guard SELECT error('erasure_ends is append-only')::INTEGER;
CREATE TRIGGER erasure_ends_no_delete BEFORE DELETE ON erasure_ends FOR EACH STATEMENT
    INSERT INTO guard SELECT error('erasure_ends is append-only')::INTEGER;

CREATE VIEW erasures AS
SELECT r.erasure_id, r.mailbox, r.kind, e.n_messages, r.at AS asked_at, f.at AS finished_at, f.receipt_sha256
FROM erasure_rows AS r
LEFT JOIN (SELECT erasure_id, count(*) AS n_messages FROM erased_rows GROUP BY erasure_id) AS e
    ON e.erasure_id = r.erasure_id
LEFT JOIN erasure_ends AS f ON f.erasure_id = r.erasure_id;

CREATE OR REPLACE VIEW messages AS
SELECT m.mailbox, m.message_key, m.thread_id, m.split, m.window_idx, m.arrival_ordinal, m.received_at, m.date,
       CASE WHEN e.erasure_id IS NULL THEN sender.value END AS sender,
       CASE WHEN e.erasure_id IS NULL THEN subject.value END AS subject, m.n_tokens, m.bulk, m.defects
FROM message_rows AS m
LEFT JOIN bodies.people AS sender ON sender.key = m.sender_key
LEFT JOIN bodies.people AS subject ON subject.key = m.subject_key
LEFT JOIN erased_rows AS e ON e.mailbox = m.mailbox AND e.message_key = m.message_key;
