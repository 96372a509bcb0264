-- What the figures of a run's replies and of its search rest on, one row each; no text.

CREATE TABLE reply_rows (
    run_id VARCHAR NOT NULL,
    adapter_id VARCHAR NOT NULL,
    checkpoint VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    message_key VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    given VARCHAR NOT NULL,
    mails VARCHAR[] NOT NULL,
    nll DOUBLE NOT NULL,
    n_tokens BIGINT NOT NULL,
    eval_version BIGINT NOT NULL
);

CREATE TABLE written_rows (
    run_id VARCHAR NOT NULL,
    adapter_id VARCHAR NOT NULL,
    checkpoint VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    message_key VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    n_tokens BIGINT NOT NULL,
    rouge_l DOUBLE NOT NULL,
    bleu DOUBLE NOT NULL,
    exact DOUBLE NOT NULL,
    f1 DOUBLE NOT NULL,
    repetition DOUBLE
);

CREATE TABLE question_rows (
    run_id VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    message_key VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    parent_key VARCHAR NOT NULL,
    found VARCHAR[] NOT NULL,
    rank BIGINT,
    ndcg DOUBLE NOT NULL
);

CREATE TRIGGER reply_rows_no_update BEFORE UPDATE ON reply_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('reply_rows is append-only')::INTEGER;
CREATE TRIGGER reply_rows_no_delete BEFORE DELETE ON reply_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('reply_rows is append-only')::INTEGER;
CREATE TRIGGER written_rows_no_update BEFORE UPDATE ON written_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('written_rows is append-only')::INTEGER;
CREATE TRIGGER written_rows_no_delete BEFORE DELETE ON written_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('written_rows is append-only')::INTEGER;
CREATE TRIGGER question_rows_no_update BEFORE UPDATE ON question_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('question_rows is append-only')::INTEGER;
CREATE TRIGGER question_rows_no_delete BEFORE DELETE ON question_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('question_rows is append-only')::INTEGER;

CREATE VIEW replies AS
SELECT r.run_id, r.adapter_id, r.checkpoint, r.mailbox, r.message_key, r.thread_id, r.split, r.given, r.mails, r.nll,
       r.n_tokens, r.eval_version
FROM reply_rows AS r;

CREATE VIEW written AS
SELECT w.run_id, w.adapter_id, w.checkpoint, w.mailbox, w.message_key, w.thread_id, w.split, w.n_tokens, w.rouge_l, w.bleu,
       w.exact, w.f1, w.repetition
FROM written_rows AS w;

CREATE VIEW questions AS
SELECT q.run_id, q.mailbox, q.message_key, q.thread_id, q.split, q.parent_key, q.found, q.rank, q.ndcg
FROM question_rows AS q;
