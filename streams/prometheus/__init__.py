"""Figures of a home and of its daemon for Prometheus. ``prometheus_client`` is imported when somebody asks for them."""
