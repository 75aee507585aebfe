import dataclasses
import io

import pytest
from tyro import MISSING
from tyro.conf import Positional

from experiments.harness import flags
from experiments.harness.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Of:
    folder: Positional[str] = MISSING


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "required: STR; see --help."),
        (["a", "--size"], "Unrecognized options: --size; see --help."),
    ],
)
def test_a_complaint_is_one_sentence_with_and_without_box_characters(
    encoding, arguments, sentence, monkeypatch
):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(ConfigError) as complaint:
        flags.parse("of.py", "", arguments, Of())
    assert str(complaint.value) == sentence
