"""A grid: its file (file.py), what of it is finished, and what runs its cells here, on Ray or on Slurm."""
