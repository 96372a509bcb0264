"""The forgetting study: the same windows trained under several ways of rehearsing, and what each forgot and learned.

Manifest, schedule, training loop and losses are those of a run; only the bookkeeping between runs is kept in memory, so
that hundreds of small trainings cost what their tokens cost.
"""
