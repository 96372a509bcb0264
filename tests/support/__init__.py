"""What several tests share: programs that kill, archives to read."""
