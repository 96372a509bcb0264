"""From messages to chunks, and their files."""
