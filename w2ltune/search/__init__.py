"""The search space, the study and its samplers."""
