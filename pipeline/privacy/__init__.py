"""What must not be learned or said: secrets, personal data, planted numbers."""
