"""Leaderboards, plots and pages."""
