"""Adams multistep methods as diffrax solvers: with a fixed step, and with a controlled one."""

from jax_node.adams.controller import AdamsController, AdamsControllerState
from jax_node.adams.fixed import ExplicitAdams, FixedAdamsState, ImplicitAdams
from jax_node.adams.state import AdamsState
from jax_node.adams.statistics import statistics
from jax_node.adams.variable import Adams

__all__ = [
    "Adams",
    "AdamsController",
    "AdamsControllerState",
    "AdamsState",
    "ExplicitAdams",
    "FixedAdamsState",
    "ImplicitAdams",
    "statistics",
]
