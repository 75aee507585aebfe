"""Neural ODE models in Flax, solved with diffrax."""
