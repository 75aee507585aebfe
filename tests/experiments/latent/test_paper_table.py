"""The table across the three settings, from summaries."""

import json

import pytest

from experiments.latent import paper_table


def summary(observations, beyond):
    return {
        "observations": observations,
        "data": f"spirals {observations}",
        "rmse": {"RNN": {"beyond": beyond}, "latent ODE, RNN encoder": {"beyond": beyond / 2}},
        "seconds_total": 12.0,
    }


def folders(tmp_path, *summaries):
    found = []
    for k, one in enumerate(summaries):
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / "summary.json").write_text(json.dumps(one))
        found.append(str(tmp_path / str(k)))
    return found


def test_the_table_has_a_column_for_each_setting_and_leaves_the_rest_of_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end table -->\nafter\n")
    runs = folders(tmp_path, summary(100, 0.5), summary(30, 0.75))
    assert paper_table.main([str(page), *runs]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| RNN | 0.75 | 0.5 |" in text
    assert "| paper, latent ODE | 0.1642 | 0.1346 |" in text


@pytest.mark.parametrize(
    "summaries",
    [[summary(30, 1.0)] * 2, [summary(31, 1.0)], [{"a": 1}], [{**summary(30, 1.0), "data": None}]],
)
def test_runs_that_do_not_fit_are_refused(summaries, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- table -->\n<!-- end table -->\n")
    assert paper_table.main([str(page), *folders(tmp_path, *summaries)]) == 2
    assert capsys.readouterr().err.startswith("latent_table.py: ")
    assert page.read_text() == "<!-- table -->\n<!-- end table -->\n"
