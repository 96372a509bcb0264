"""``python -m streams.cli`` is ``mailtide``."""

from streams.cli import main

main()
