"""Adams multistep methods as diffrax solvers: with a fixed step, and with a controlled one."""

from jax_node.adams.fixed import ExplicitAdams, FixedAdamsState, ImplicitAdams

__all__ = ["ExplicitAdams", "FixedAdamsState", "ImplicitAdams"]
