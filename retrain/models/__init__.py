"""Models and adapters: found, loaded, merged, asked."""
