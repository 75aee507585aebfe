"""What flows do to points and densities."""
