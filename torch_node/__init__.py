"""The PyTorch twin of `jax_node`, on torchdiffeq."""
