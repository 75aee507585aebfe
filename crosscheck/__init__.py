"""Compares the two frameworks: weights, trajectories and gradients."""
