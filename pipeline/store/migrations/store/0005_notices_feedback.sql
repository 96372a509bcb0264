-- Which notices went to whom, and what people said about answers.

CREATE TABLE notice_targets (
    target VARCHAR NOT NULL,
    journal_after BIGINT NOT NULL,
    outbox_after BIGINT NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE notice_rows (
    notice_id VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL,
    attempts BIGINT NOT NULL,
    "error" VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE feedback_rows (
    feedback_id VARCHAR NOT NULL,
    answer_id VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    adapter_id VARCHAR NOT NULL,
    user_key VARCHAR,
    rating VARCHAR NOT NULL,
    correction_sha VARCHAR,
    "at" TIMESTAMP NOT NULL
);

CREATE TRIGGER notice_targets_no_update BEFORE UPDATE ON notice_targets FOR EACH STATEMENT
    INSERT INTO guard SELECT error('notice_targets is append-only')::INTEGER;
CREATE TRIGGER notice_targets_no_delete BEFORE DELETE ON notice_targets FOR EACH STATEMENT
    INSERT INTO guard SELECT error('notice_targets is append-only')::INTEGER;
CREATE TRIGGER notice_rows_no_update BEFORE UPDATE ON notice_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('notice_rows is append-only')::INTEGER;
CREATE TRIGGER notice_rows_no_delete BEFORE DELETE ON notice_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('notice_rows is append-only')::INTEGER;
CREATE TRIGGER feedback_rows_no_update BEFORE UPDATE ON feedback_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('feedback_rows is append-only')::INTEGER;
CREATE TRIGGER feedback_rows_no_delete BEFORE DELETE ON feedback_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('feedback_rows is append-only')::INTEGER;
