"""Sources of mail. A feed numbers what it reads, durably, before it hands it on, and resumes where it stood."""
