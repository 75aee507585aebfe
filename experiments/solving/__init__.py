"""Solvers compared, on problems with known solutions and in training."""
