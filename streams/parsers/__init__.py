"""Mails parsed in processes of their own, which end when a mail harms them."""
