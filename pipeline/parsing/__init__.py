"""What a mail's bytes become."""
