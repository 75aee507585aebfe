"""Vector fields learnt from trajectories."""
