"""Neural ODEs against baselines that were given the same chance."""
