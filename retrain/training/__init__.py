"""From examples to an adapter."""
