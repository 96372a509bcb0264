"""Where a champion is put to use, one target a file."""
