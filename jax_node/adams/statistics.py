"""What a solve by an Adams method cost, and how it went."""

from __future__ import annotations

import diffrax
import jax
from jaxtyping import Array, Shaped

from jax_node.adams.controller import AdamsControllerState
from jax_node.adams.fixed import FixedAdamsState
from jax_node.adams.state import AdamsState


def statistics(solution: diffrax.Solution) -> dict[str, Shaped[Array, "..."]]:
    """Return counts of a solve that was saved with its states.

    Save with `SaveAt(..., solver_state=True)`, for `Adams` also `controller_state=True`. Keys:
    `nfe`, true evaluations of the vector field, rejected steps and the choice of the first step
    included; fixed step: `non_converged`, steps whose functional iteration did not converge;
    adaptive: `highest_order` and `contraction` (see `AdamsState`). Works under `vmap`.

    Raises:
        ValueError: a state was not saved.
    """
    state = solution.solver_state
    if isinstance(state, FixedAdamsState):
        return {"nfe": state.nfe, "non_converged": state.non_converged}
    if not isinstance(state, AdamsState):
        raise ValueError(
            f"solver_state is {type(state).__name__}, expected that of an Adams method: "
            "solve with saveat=SaveAt(t1=True, solver_state=True)."
        )
    is_ours = lambda leaf: isinstance(leaf, AdamsControllerState)
    leaves = jax.tree.leaves(solution.controller_state, is_leaf=is_ours)
    found = [leaf for leaf in leaves if is_ours(leaf)]
    if not found:
        raise ValueError(
            "controller_state is not that of an AdamsController: solve with "
            "stepsize_controller=AdamsController(...), "
            "saveat=SaveAt(t1=True, solver_state=True, controller_state=True)."
        )
    return {
        "nfe": state.nfe + found[0].nfe,
        "highest_order": state.highest_order,
        "contraction": state.contraction,
    }
