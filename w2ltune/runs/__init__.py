"""Folders, locks, child processes and provenance of a run."""
