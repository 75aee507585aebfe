"""The examples in docstrings are what a user would copy: they run."""

import doctest
import importlib

import jax
import pytest


@pytest.mark.parametrize("module", ["solve"])
def test_examples(module):
    with jax.enable_x64(False):
        found = doctest.testmod(importlib.import_module(f"jax_node.{module}"))
    assert found.failed == 0
    assert found.attempted > 0
