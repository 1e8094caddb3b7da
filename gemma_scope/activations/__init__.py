"""Activations of prompts and batches."""
