"""Autograd's graph: which tensors a value was computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge


def sources(values: Iterable[Any], known: set[Any]) -> Iterator[Any]:
    """The nodes behind these nodes, not beyond those that are `known`, which come too."""
    waiting, met = list(values), set()
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is None or node in met:
                continue
            met.add(node)
            yield node
            if node not in known:
                waiting.append(node)


def node(tensor: Tensor) -> Any:
    """The node at which the gradient of a tensor arrives; None if it has none."""
    return get_gradient_edge(tensor).node if tensor.requires_grad else None


def read_besides(value: Tensor, known: set[Any]) -> Tensor | None:
    """A leaf that `value` was computed from, not by way of a `known` node, if there is one."""
    if node(value) in known:
        return None
    leaf = lambda found: type(found).__name__ == "AccumulateGrad" and found not in known
    return next((n.variable for n in sources([node(value)], known) if leaf(n)), None)


def computed_from_each_other(tensors: Sequence[Tensor]) -> bool:
    """Whether one of them was computed from another one."""
    computed = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    nodes = set(map(node, tensors)) if computed else set()
    return any(found in nodes for found in sources(computed, set()))
