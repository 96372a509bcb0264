"""What is decided the moment a mail arrives: key, thread, split, window."""
