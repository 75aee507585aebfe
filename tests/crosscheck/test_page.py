"""The page's examples run, and its block takes a report."""

import functools
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "crosscheck.md"


def test_the_examples_of_the_page_run(capsys):
    example, helper = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    exec(example, names)
    found = names["found"]
    assert str(found) == f"all {len(found.checks)} checks are within their bounds"
    assert {check.group for check in found.checks} == {"vector field", "trajectories", "gradients"}
    assert "checks are within their bounds" in capsys.readouterr().out
    exec(helper, names)
    # The solvers have just been compared on this field: to compile them again takes half a minute.
    names["assert_same"] = functools.partial(names["assert_same"], solvers=())
    names["test_my_field"]()
    names["in_jax"] = lambda t, z, params: -z
    with pytest.raises(AssertionError, match=r"vector field: .* jax has .*, torch has "):
        names["test_my_field"]()
