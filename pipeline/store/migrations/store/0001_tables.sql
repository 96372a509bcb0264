-- Every table of the store; a row is written once. The *_hash columns are md5_number_lower of the column named before
-- them: looking up a batch of keys then reads eight bytes a row, whatever the length of the keys.

CREATE TABLE migrations (
    number INTEGER PRIMARY KEY,
    name VARCHAR NOT NULL,
    applied_at TIMESTAMP NOT NULL
);

CREATE TABLE frozen_values (
    name VARCHAR PRIMARY KEY,
    "value" VARCHAR NOT NULL
);

CREATE TABLE mailbox_rows (
    mailbox VARCHAR NOT NULL,
    clock VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE feed_rows (
    mailbox VARCHAR NOT NULL,
    feed VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    registered_at TIMESTAMP NOT NULL
);

CREATE TABLE message_rows (
    mailbox VARCHAR NOT NULL,
    message_key VARCHAR NOT NULL,
    base_key VARCHAR NOT NULL,
    content_sha VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    window_idx BIGINT NOT NULL,
    arrival_ordinal BIGINT NOT NULL,
    received_at TIMESTAMP NOT NULL,
    date TIMESTAMP,
    sender_key VARCHAR,
    sender_name_key VARCHAR,
    subject_key VARCHAR,
    subject_norm_key VARCHAR,
    participants VARCHAR[] NOT NULL,
    parent_key VARCHAR,
    text_sha VARCHAR,
    own_sha VARCHAR,
    n_tokens BIGINT NOT NULL,
    list_id VARCHAR,
    bulk BOOLEAN NOT NULL,
    auto BOOLEAN NOT NULL,
    defects VARCHAR[] NOT NULL,
    feed VARCHAR NOT NULL,
    number BIGINT NOT NULL,
    message_key_hash UBIGINT NOT NULL,
    base_key_hash UBIGINT NOT NULL,
    subject_norm_key_hash UBIGINT,
    thread_id_hash UBIGINT NOT NULL
);

CREATE TABLE thread_rows (
    mailbox VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    first_window BIGINT NOT NULL,
    first_ordinal BIGINT NOT NULL,
    thread_id_hash UBIGINT NOT NULL
);

CREATE TABLE links (
    mailbox VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    id_hash UBIGINT NOT NULL
);

CREATE TABLE quarantined_ids (
    mailbox VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    id_hash UBIGINT NOT NULL
);

CREATE TABLE correspondents (
    mailbox VARCHAR NOT NULL,
    person_key VARCHAR NOT NULL,
    person_key_hash UBIGINT NOT NULL
);

CREATE TABLE bridge_rows (
    mailbox VARCHAR NOT NULL,
    message_key VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    other_thread_id VARCHAR NOT NULL,
    same_split BOOLEAN NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE exclusion_rows (
    mailbox VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    chunk_id VARCHAR,
    reason VARCHAR NOT NULL,
    since_window BIGINT NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE duplicate_rows (
    mailbox VARCHAR NOT NULL,
    message_key VARCHAR NOT NULL,
    feed VARCHAR NOT NULL,
    cursor VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE dead_letter_rows (
    id VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    feed VARCHAR NOT NULL,
    cursor VARCHAR NOT NULL,
    received_at TIMESTAMP NOT NULL,
    stage VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    attempts BIGINT NOT NULL,
    raw_sha VARCHAR,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE taken (
    mailbox VARCHAR NOT NULL,
    feed VARCHAR NOT NULL,
    last_number BIGINT NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE window_states (
    mailbox VARCHAR NOT NULL,
    next_ordinal BIGINT NOT NULL,
    state VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE closings (
    mailbox VARCHAR NOT NULL,
    window_idx BIGINT NOT NULL,
    opened_at TIMESTAMP NOT NULL,
    closed_at TIMESTAMP NOT NULL,
    reason VARCHAR NOT NULL,
    n_messages BIGINT NOT NULL,
    n_tokens BIGINT NOT NULL,
    last_ordinal BIGINT NOT NULL
);

CREATE TABLE shard_rows (
    mailbox VARCHAR NOT NULL,
    window_idx BIGINT NOT NULL,
    n_chunks BIGINT NOT NULL,
    shard_path VARCHAR NOT NULL,
    shard_sha256 VARCHAR NOT NULL,
    text_sha256 VARCHAR NOT NULL,
    event_id VARCHAR NOT NULL
);

CREATE TABLE chunk_rows (
    mailbox VARCHAR NOT NULL,
    chunk_id VARCHAR NOT NULL,
    thread_id VARCHAR NOT NULL,
    window_idx BIGINT NOT NULL,
    split VARCHAR NOT NULL,
    sender VARCHAR NOT NULL,
    message_keys VARCHAR[] NOT NULL,
    n_context BIGINT NOT NULL,
    n_messages BIGINT NOT NULL,
    n_tokens BIGINT NOT NULL,
    bucket VARCHAR NOT NULL,
    tier VARCHAR NOT NULL,
    sha256 VARCHAR NOT NULL,
    format BIGINT NOT NULL,
    chunk_id_hash UBIGINT NOT NULL
);

CREATE TABLE outbox (
    ordinal BIGINT NOT NULL,
    event_id VARCHAR NOT NULL,
    topic VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    data VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE deliveries (
    event_id VARCHAR NOT NULL,
    consumer VARCHAR NOT NULL,
    attempt BIGINT NOT NULL,
    outcome VARCHAR NOT NULL,
    error VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE requests (
    run_id VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    windows BIGINT[] NOT NULL,
    parent_adapter VARCHAR,
    adapter_id VARCHAR NOT NULL,
    request VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE run_events (
    run_id VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    detail VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE run_results (
    run_id VARCHAR NOT NULL,
    started_at TIMESTAMP NOT NULL,
    finished_at TIMESTAMP NOT NULL,
    steps BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    cost DOUBLE NOT NULL
);

CREATE TABLE metric_rows (
    run_id VARCHAR NOT NULL,
    adapter_id VARCHAR NOT NULL,
    checkpoint VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    window_from BIGINT,
    window_to BIGINT,
    metric VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    n BIGINT NOT NULL,
    ci_low DOUBLE,
    ci_high DOUBLE
);

CREATE TABLE loss_rows (
    adapter_id VARCHAR NOT NULL,
    checkpoint VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    chunk_id VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    nll DOUBLE NOT NULL,
    n_tokens BIGINT NOT NULL,
    n_bytes BIGINT NOT NULL,
    eval_version BIGINT NOT NULL,
    chunk_id_hash UBIGINT NOT NULL
);

CREATE TABLE trained_rows (
    run_id VARCHAR NOT NULL,
    adapter_id VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    chunk_id VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    times BIGINT NOT NULL,
    chunk_id_hash UBIGINT NOT NULL
);

CREATE TABLE adapter_rows (
    adapter_id VARCHAR NOT NULL,
    mailbox VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    base_id VARCHAR NOT NULL,
    parent_adapter VARCHAR,
    created_at TIMESTAMP NOT NULL,
    sha256 VARCHAR NOT NULL,
    safety_flags BIGINT NOT NULL
);

CREATE TABLE journal_rows (
    ordinal BIGINT NOT NULL,
    "at" TIMESTAMP NOT NULL,
    mailbox VARCHAR NOT NULL,
    adapter_id VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    actor VARCHAR NOT NULL
);
