import itertools

import pytest
from matplotlib.figure import Figure

from experiments.section3.figures import label_ends


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_labels_of_lines_that_end_alike_do_not_collide(scale):
    figure = Figure(figsize=(4, 3), dpi=110, layout="constrained")
    axis = figure.subplots()
    ends = [1.0, 1.0, 1.001, 30.0, 0.999]
    for end in ends:
        axis.plot([1, 2], [50, end])
    axis.set_yscale(scale)
    label_ends(axis, [(2, end) for end in ends], [(f"model {i}", "black") for i in range(5)])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    # From the lowest end to the highest; of equals in the order given.
    names = [text.get_text() for text in sorted(axis.texts, key=lambda t: t.get_window_extent().y0)]
    assert names == [f"model {i}" for i in (4, 0, 1, 2, 3)]
