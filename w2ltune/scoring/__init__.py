"""Error counts, intervals and n-best arithmetic; needs numpy and jiwer only."""
