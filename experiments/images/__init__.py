"""Labelled images: where they come from, how they are stored, and batches of them."""
