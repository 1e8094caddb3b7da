"""Gemma 3 as Penzai layers, and what runs it."""
