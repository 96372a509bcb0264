"""A generated mailbox of fictional people: what ``mailtide demo`` runs on, and what a stranger sees first."""
