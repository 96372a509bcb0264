"""``report.html``: one run on one page, for people."""
