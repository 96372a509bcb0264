"""A spot check: people judge two adapters' replies to held-out mails, in blind order, on a page or in the terminal."""
