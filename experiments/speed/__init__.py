"""JAX against PyTorch: time, memory, compilation."""
