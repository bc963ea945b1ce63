"""The site, SLURM, and the connection to Ray."""
