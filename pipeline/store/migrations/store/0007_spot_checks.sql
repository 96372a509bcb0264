-- What people preferred when two adapters' replies stood side by side, in blind order.

CREATE TABLE spot_rows (
    spot_id VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    message_key VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    shown_first VARCHAR NOT NULL,
    shown_second VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL,
    judge VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TRIGGER spot_rows_no_update BEFORE UPDATE ON spot_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('spot_rows is append-only')::INTEGER;
CREATE TRIGGER spot_rows_no_delete BEFORE DELETE ON spot_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('spot_rows is append-only')::INTEGER;

CREATE VIEW spot_checks AS SELECT s.mailbox, s.message_key, s.thread_id, s.shown_first, s.shown_second, s.verdict,
    CASE s.verdict WHEN 'first' THEN s.shown_first WHEN 'second' THEN s.shown_second END AS preferred, s.judge, s."at"
    FROM spot_rows AS s;
