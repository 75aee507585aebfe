"""Latent ODEs of irregularly observed series."""
