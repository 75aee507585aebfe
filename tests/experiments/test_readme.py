"""The README's example of the library runs as it stands, and its gradient is right."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}
    exec(example, names)
    assert str(names["solution"].nfe) in capsys.readouterr().out
    loss = lambda shift: names["loss"](names["weights"].at[0, 1].add(shift))[0]
    # Central differences of fourth order; ten times the tolerances of the solve, which are 1e-6.
    slope = lambda h: float(loss(h) - loss(-h)) / (2 * h)
    by_differences = (4 * slope(0.01) - slope(0.02)) / 3
    assert float(names["gradient"][0, 1]) == pytest.approx(by_differences, abs=1e-5)
