-- What is written stays: UPDATE and DELETE, and with them TRUNCATE, MERGE and data-modifying CTEs, fail on every table.
-- DuckDB fires such a trigger once per statement, before it; the guard table is only there to give it something to do.

CREATE TABLE guard (refused INTEGER);

CREATE TRIGGER migrations_no_update BEFORE UPDATE ON migrations FOR EACH STATEMENT
    INSERT INTO guard SELECT error('migrations is append-only')::INTEGER;
CREATE TRIGGER migrations_no_delete BEFORE DELETE ON migrations FOR EACH STATEMENT
    INSERT INTO guard SELECT error('migrations is append-only')::INTEGER;
CREATE TRIGGER frozen_values_no_update BEFORE UPDATE ON frozen_values FOR EACH STATEMENT
    INSERT INTO guard SELECT error('frozen_values is append-only')::INTEGER;
CREATE TRIGGER frozen_values_no_delete BEFORE DELETE ON frozen_values FOR EACH STATEMENT
    INSERT INTO guard SELECT error('frozen_values is append-only')::INTEGER;
CREATE TRIGGER mailbox_rows_no_update BEFORE UPDATE ON mailbox_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('mailbox_rows is append-only')::INTEGER;
CREATE TRIGGER mailbox_rows_no_delete BEFORE DELETE ON mailbox_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('mailbox_rows is append-only')::INTEGER;
CREATE TRIGGER feed_rows_no_update BEFORE UPDATE ON feed_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('feed_rows is append-only')::INTEGER;
CREATE TRIGGER feed_rows_no_delete BEFORE DELETE ON feed_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('feed_rows is append-only')::INTEGER;
CREATE TRIGGER message_rows_no_update BEFORE UPDATE ON message_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('message_rows is append-only')::INTEGER;
CREATE TRIGGER message_rows_no_delete BEFORE DELETE ON message_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('message_rows is append-only')::INTEGER;
CREATE TRIGGER thread_rows_no_update BEFORE UPDATE ON thread_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('thread_rows is append-only')::INTEGER;
CREATE TRIGGER thread_rows_no_delete BEFORE DELETE ON thread_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('thread_rows is append-only')::INTEGER;
CREATE TRIGGER links_no_update BEFORE UPDATE ON links FOR EACH STATEMENT
    INSERT INTO guard SELECT error('links is append-only')::INTEGER;
CREATE TRIGGER links_no_delete BEFORE DELETE ON links FOR EACH STATEMENT
    INSERT INTO guard SELECT error('links is append-only')::INTEGER;
CREATE TRIGGER quarantined_ids_no_update BEFORE UPDATE ON quarantined_ids FOR EACH STATEMENT
    INSERT INTO guard SELECT error('quarantined_ids is append-only')::INTEGER;
CREATE TRIGGER quarantined_ids_no_delete BEFORE DELETE ON quarantined_ids FOR EACH STATEMENT
    INSERT INTO guard SELECT error('quarantined_ids is append-only')::INTEGER;
CREATE TRIGGER correspondents_no_update BEFORE UPDATE ON correspondents FOR EACH STATEMENT
    INSERT INTO guard SELECT error('correspondents is append-only')::INTEGER;
CREATE TRIGGER correspondents_no_delete BEFORE DELETE ON correspondents FOR EACH STATEMENT
    INSERT INTO guard SELECT error('correspondents is append-only')::INTEGER;
CREATE TRIGGER bridge_rows_no_update BEFORE UPDATE ON bridge_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('bridge_rows is append-only')::INTEGER;
CREATE TRIGGER bridge_rows_no_delete BEFORE DELETE ON bridge_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('bridge_rows is append-only')::INTEGER;
CREATE TRIGGER exclusion_rows_no_update BEFORE UPDATE ON exclusion_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('exclusion_rows is append-only')::INTEGER;
CREATE TRIGGER exclusion_rows_no_delete BEFORE DELETE ON exclusion_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('exclusion_rows is append-only')::INTEGER;
CREATE TRIGGER duplicate_rows_no_update BEFORE UPDATE ON duplicate_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('duplicate_rows is append-only')::INTEGER;
CREATE TRIGGER duplicate_rows_no_delete BEFORE DELETE ON duplicate_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('duplicate_rows is append-only')::INTEGER;
CREATE TRIGGER dead_letter_rows_no_update BEFORE UPDATE ON dead_letter_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('dead_letter_rows is append-only')::INTEGER;
CREATE TRIGGER dead_letter_rows_no_delete BEFORE DELETE ON dead_letter_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('dead_letter_rows is append-only')::INTEGER;
CREATE TRIGGER taken_no_update BEFORE UPDATE ON taken FOR EACH STATEMENT
    INSERT INTO guard SELECT error('taken is append-only')::INTEGER;
CREATE TRIGGER taken_no_delete BEFORE DELETE ON taken FOR EACH STATEMENT
    INSERT INTO guard SELECT error('taken is append-only')::INTEGER;
CREATE TRIGGER window_states_no_update BEFORE UPDATE ON window_states FOR EACH STATEMENT
    INSERT INTO guard SELECT error('window_states is append-only')::INTEGER;
CREATE TRIGGER window_states_no_delete BEFORE DELETE ON window_states FOR EACH STATEMENT
    INSERT INTO guard SELECT error('window_states is append-only')::INTEGER;
CREATE TRIGGER closings_no_update BEFORE UPDATE ON closings FOR EACH STATEMENT
    INSERT INTO guard SELECT error('closings is append-only')::INTEGER;
CREATE TRIGGER closings_no_delete BEFORE DELETE ON closings FOR EACH STATEMENT
    INSERT INTO guard SELECT error('closings is append-only')::INTEGER;
CREATE TRIGGER shard_rows_no_update BEFORE UPDATE ON shard_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('shard_rows is append-only')::INTEGER;
CREATE TRIGGER shard_rows_no_delete BEFORE DELETE ON shard_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('shard_rows is append-only')::INTEGER;
CREATE TRIGGER chunk_rows_no_update BEFORE UPDATE ON chunk_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('chunk_rows is append-only')::INTEGER;
CREATE TRIGGER chunk_rows_no_delete BEFORE DELETE ON chunk_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('chunk_rows is append-only')::INTEGER;
CREATE TRIGGER outbox_no_update BEFORE UPDATE ON outbox FOR EACH STATEMENT
    INSERT INTO guard SELECT error('outbox is append-only')::INTEGER;
CREATE TRIGGER outbox_no_delete BEFORE DELETE ON outbox FOR EACH STATEMENT
    INSERT INTO guard SELECT error('outbox is append-only')::INTEGER;
CREATE TRIGGER deliveries_no_update BEFORE UPDATE ON deliveries FOR EACH STATEMENT
    INSERT INTO guard SELECT error('deliveries is append-only')::INTEGER;
CREATE TRIGGER deliveries_no_delete BEFORE DELETE ON deliveries FOR EACH STATEMENT
    INSERT INTO guard SELECT error('deliveries is append-only')::INTEGER;
CREATE TRIGGER requests_no_update BEFORE UPDATE ON requests FOR EACH STATEMENT
    INSERT INTO guard SELECT error('requests is append-only')::INTEGER;
CREATE TRIGGER requests_no_delete BEFORE DELETE ON requests FOR EACH STATEMENT
    INSERT INTO guard SELECT error('requests is append-only')::INTEGER;
CREATE TRIGGER run_events_no_update BEFORE UPDATE ON run_events FOR EACH STATEMENT
    INSERT INTO guard SELECT error('run_events is append-only')::INTEGER;
CREATE TRIGGER run_events_no_delete BEFORE DELETE ON run_events FOR EACH STATEMENT
    INSERT INTO guard SELECT error('run_events is append-only')::INTEGER;
CREATE TRIGGER run_results_no_update BEFORE UPDATE ON run_results FOR EACH STATEMENT
    INSERT INTO guard SELECT error('run_results is append-only')::INTEGER;
CREATE TRIGGER run_results_no_delete BEFORE DELETE ON run_results FOR EACH STATEMENT
    INSERT INTO guard SELECT error('run_results is append-only')::INTEGER;
CREATE TRIGGER metric_rows_no_update BEFORE UPDATE ON metric_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('metric_rows is append-only')::INTEGER;
CREATE TRIGGER metric_rows_no_delete BEFORE DELETE ON metric_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('metric_rows is append-only')::INTEGER;
CREATE TRIGGER loss_rows_no_update BEFORE UPDATE ON loss_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('loss_rows is append-only')::INTEGER;
CREATE TRIGGER loss_rows_no_delete BEFORE DELETE ON loss_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('loss_rows is append-only')::INTEGER;
CREATE TRIGGER trained_rows_no_update BEFORE UPDATE ON trained_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('trained_rows is append-only')::INTEGER;
CREATE TRIGGER trained_rows_no_delete BEFORE DELETE ON trained_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('trained_rows is append-only')::INTEGER;
CREATE TRIGGER adapter_rows_no_update BEFORE UPDATE ON adapter_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('adapter_rows is append-only')::INTEGER;
CREATE TRIGGER adapter_rows_no_delete BEFORE DELETE ON adapter_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('adapter_rows is append-only')::INTEGER;
CREATE TRIGGER journal_rows_no_update BEFORE UPDATE ON journal_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('journal_rows is append-only')::INTEGER;
CREATE TRIGGER journal_rows_no_delete BEFORE DELETE ON journal_rows FOR EACH STATEMENT
    INSERT INTO guard SELECT error('journal_rows is append-only')::INTEGER;
