"""Mail flows through a whole installation while its parts are killed; in the end nothing may be lost, doubled or leaked."""
