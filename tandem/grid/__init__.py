"""Grids: read the file, find finished cells, and run the others on this machine, on Ray or on Slurm."""
