"""Seeing results: reports, terminal summaries, and the words they use."""
