-- How often each kind of secret was masked in the new text of a window's chunks.

CREATE TABLE masked_rows (
    mailbox VARCHAR NOT NULL,
    window_idx BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    n BIGINT NOT NULL
);

CREATE TRIGGER masked_rows_no_update BEFORE UPDATE ON masked_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('masked_rows is append-only')::INTEGER;
CREATE TRIGGER masked_rows_no_delete BEFORE DELETE ON masked_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('masked_rows is append-only')::INTEGER;

CREATE VIEW masked AS SELECT m.mailbox, m.window_idx, m.kind, m.n FROM masked_rows AS m;
