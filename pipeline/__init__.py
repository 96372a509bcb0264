"""What a mail becomes: parsing, decisions as pure functions, the store, shards, manifests and schedules."""
