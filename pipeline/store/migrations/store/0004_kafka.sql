-- What an assigner on Kafka keeps with the rows: which partitions are this store's, and how far it has read each of them.

CREATE TABLE owned_partitions (
    cluster VARCHAR NOT NULL,
    topic VARCHAR NOT NULL,
    "partition" BIGINT NOT NULL,
    partitions BIGINT NOT NULL,
    store VARCHAR NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TABLE source_offsets (
    cluster VARCHAR NOT NULL,
    topic VARCHAR NOT NULL,
    "partition" BIGINT NOT NULL,
    next_offset BIGINT NOT NULL,
    "at" TIMESTAMP NOT NULL
);

CREATE TRIGGER owned_partitions_no_update BEFORE UPDATE ON owned_partitions FOR EACH STATEMENT
    INSERT INTO guard SELECT error('owned_partitions is append-only')::INTEGER;
CREATE TRIGGER owned_partitions_no_delete BEFORE DELETE ON owned_partitions FOR EACH STATEMENT
    INSERT INTO guard SELECT error('owned_partitions is append-only')::INTEGER;
CREATE TRIGGER source_offsets_no_update BEFORE UPDATE ON source_offsets FOR EACH STATEMENT
    INSERT INTO guard SELECT error('source_offsets is append-only')::INTEGER;
CREATE TRIGGER source_offsets_no_delete BEFORE DELETE ON source_offsets FOR EACH STATEMENT
    INSERT INTO guard SELECT error('source_offsets is append-only')::INTEGER;
