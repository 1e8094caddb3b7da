"""Readings of one model: lens, direct attribution, explanations."""
