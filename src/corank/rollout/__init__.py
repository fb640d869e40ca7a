"""Staged roll-out: a live A/B test that stops itself."""
