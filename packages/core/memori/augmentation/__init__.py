"""Stored exchanges → facts: extraction, supersession, redaction, and the worker that does it in the background."""
