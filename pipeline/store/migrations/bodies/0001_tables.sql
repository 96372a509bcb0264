-- What spells out people and texts, by hash. Rows here can be erased; nothing else of a home says the same.
-- The *_hash columns are md5_number_lower of the column beside them: a probe over integers reads no text.

CREATE TABLE bodies.migrations (
    number INTEGER PRIMARY KEY,
    name VARCHAR NOT NULL,
    applied_at TIMESTAMP NOT NULL
);

CREATE TABLE bodies.texts (
    sha256 VARCHAR NOT NULL,
    body VARCHAR NOT NULL USING COMPRESSION zstd,
    sha256_hash UBIGINT NOT NULL
);

CREATE TABLE bodies.people (
    "key" VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    "value" VARCHAR NOT NULL,
    key_hash UBIGINT NOT NULL
);

CREATE TABLE bodies.raws (
    sha256 VARCHAR NOT NULL,
    body BLOB NOT NULL,
    sha256_hash UBIGINT NOT NULL
);
