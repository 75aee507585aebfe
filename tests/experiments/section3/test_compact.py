import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.section3 import compact


@given(numbers=st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_numbers_come_back(numbers):
    assert compact.unpack(compact.pack(np.array(numbers, np.int64))).tolist() == numbers


@given(losses=st.lists(st.floats(0, 1e4), max_size=50))
def test_losses_come_back_to_their_unit(losses):
    found = compact.unpack_losses(compact.pack_losses(np.array(losses, np.float64)))
    # 1e4 is 1e8 units, of which float64 has 2**-53.
    assert np.abs(found - losses).max(initial=0) <= compact.LOSS_UNIT * (0.5 + 1e8 * 2**-50)


@given(digits=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=50))
def test_mistakes_and_the_truth_give_the_predictions(digits):
    predicted, true = (
        "".join(map(str, of)) for of in ([p for p, _ in digits], [t for _, t in digits])
    )
    found = compact.corrected(compact.mistakes(predicted, true), true)
    assert "".join(map(str, found)) == predicted


@pytest.mark.parametrize("text", ["AAAA", "not base64!"])
def test_a_damaged_row_is_refused(text):
    with pytest.raises(ValueError, match="packed numbers|base64"):
        compact.unpack(text)
