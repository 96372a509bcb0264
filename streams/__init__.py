"""Mail and events in motion: feeds, buses, the owner of a store, and the command line."""
