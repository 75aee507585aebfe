import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.harness.errors import DataError
from experiments.series.series import Series, lynx_hare, read_csv
from experiments.trajectories import shooting, sindy
from experiments.trajectories.systems import SYSTEMS, sample

NAN = np.nan


def series(times, values):
    values = np.array(values, float)
    return Series(np.array(times, float), values, tuple("abc"[: values.shape[1]]))


@pytest.mark.parametrize(
    ("times", "values", "complaint"),
    [
        ([0, 2, 1], [[1], [2], [3]], "time 2 is followed by 1, but times must increase; sort"),
        ([0, 1, 1], [[1], [2], [3]], "time 1 is there twice"),
        ([1.7e9, 1.7e9 + 2, 1.7e9 + 1], [[1], [2], [3]], "1700000002 is followed by 1700000001"),
        ([1.7e9 + 0.5] * 2, [[1], [2]], "time 1700000000.5 is there twice"),
        ([0], [[1]], "1 observation"),
        ([0, NAN], [[1], [2]], "observation 2 is nan"),
        ([0, 1], [[1], [np.inf]], "a is infinite at time 1"),
        ([0, 1], [[1], [-1e200]], "a is -1e+200 at time 1; a number whose square is finite"),
        ([0, 1], [[1, NAN], [2, NAN]], "channel b was never observed"),
    ],
)
def test_bad_series_are_refused_in_one_sentence(times, values, complaint):
    with pytest.raises(DataError) as error:
        series(times, values)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


DAYS = np.array(["2020-01-01", "2020-01-02", "2020-01-05"], "M8[D]")


@pytest.mark.usefixtures("_no_type_checks")
@pytest.mark.parametrize(
    ("times", "values", "names", "complaint"),
    [
        # Differences of unsigned numbers wrap, and are never below 0.
        (np.array([3, 1, 2], np.uint64), np.ones((3, 1)), ("a",), "time 3 is followed by 1"),
        (2**60 + np.array([0, 200, 500]), np.ones((3, 1)), ("a",), "than float64 resolves"),
        (np.arange(3.0), np.ones(3), ("a",), r"values are float64 of shape \[3\]"),
        (np.arange(3.0), np.ones((1, 3)), ("a",), r"3 times, values of shape \[1, 3\]"),
        (np.arange(3.0), np.ones((3, 1)), ("a", "b"), r"the names \('a', 'b'\); a row"),
        (np.arange(3.0), np.ones((3, 2)), "ab", "the names 'ab'"),
        (np.arange(3.0), np.ones((3, 1)), (3,), r"are \(3,\); text"),
        (np.arange(3.0), [[1], [2, 3], [4]], ("a",), "the values are object"),
        (np.arange(3.0), np.ones((3, 1)) + 1j, ("a",), "the values are complex128"),
        (DAYS, np.ones((3, 1)), ("a",), r"times are datetime64\[D\] .* from any origin"),
    ],
)
def test_what_is_no_series_is_refused_in_one_sentence(times, values, names, complaint):
    with pytest.raises(DataError, match=complaint) as error:
        Series(times, values, names)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("_no_type_checks")
def test_lists_whole_numbers_and_masked_arrays_become_float64():
    masked = np.ma.array([[1], [7], [3]], mask=[[False], [True], [False]])
    for times in ([0, 1, 3], np.array([0, 1, 3], np.uint8)):
        found = Series(times, masked, ["a"])
        assert found.times.dtype == found.values.dtype == np.float64
        np.testing.assert_array_equal(found.values, [[1], [NAN], [3]])
        assert found.names == ("a",)


def test_missing_values_are_masked_and_never_data():
    one = series([0, 1, 2, 3], [[0.0, 1.0], [NAN, 5.0], [4.0, 9.0], [6.0, 2.0]])
    problem = shooting.prepare([one], 2, log=False)
    assert problem.batch["mask"].sum() == problem.batch["all_mask"].sum() == 7
    changed = series([0, 1, 2, 3], np.nan_to_num(one.values, nan=1e6))
    assert not np.allclose(shooting.prepare([changed], 2, log=False).mean, problem.mean)
    assert one.filled()[1, 0] == 2.0


@settings(deadline=None, max_examples=40)  # wall time says nothing on a busy machine
@given(
    count=st.integers(2, 30),
    window=st.integers(1, 12),
    seed=st.integers(0, 99),
    lost=st.floats(0, 0.8),
)
def test_every_observation_is_in_one_window_and_windows_join(count, window, seed, lost):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, 2))
    values[generator.uniform(size=values.shape) < lost] = NAN
    values[:2] = [[0.0, 1.0], [1.0, 0.0]]
    one = series(np.cumsum(generator.uniform(0.1, 1, count)), values)
    problem = shooting.prepare([one, one], window, log=False)
    batch = problem.batch
    assert batch["mask"].sum() == 2 * (~np.isnan(values)).sum()
    assert batch["times"].shape[1] == window + 1
    assert (np.diff(batch["times"], axis=1) >= 0).all()
    assert (batch["times"][:, 0] == 0).all()
    length = problem.pace * (one.times[-1] - one.times[0])
    assert batch["times"][:, -1].sum() == pytest.approx(2 * length)
    assert sum(batch["next"] == np.arange(len(batch["next"]))) == 2  # each series ends once
    observed = np.sort(batch["values"][batch["mask"] == 1])
    assert np.allclose(observed, np.sort(np.repeat(problem.scale(values)[~np.isnan(values)], 2)))


def test_lynx_hare_is_the_published_table():
    pelts = lynx_hare()
    assert pelts.values.shape == (21, 2)
    # Means of the table in Carpenter's case study: 34.1 hares, 20.2 lynxes.
    assert pelts.values.mean(0) == pytest.approx([34.08, 20.17], abs=0.01)
    first, rest = pelts.split(0.7)
    assert (first.times[-1], rest.times[0]) == (1914, 1915)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("t,a\n0,1\n1,x\n", "line 3"),
        ("\n\nt,a\n\n0,1\n  \n1,x\n", "line 7 .*'1,x'"),  # blank lines count
        ('t,a\n0,"1\n"\n1,x\n', "line 4 "),  # and those inside of quotes
        ('t,a\n0,1\n1,"2\n2,3\n', "unexpected end"),  # a quote would swallow the rest
        ("t,a\n0,1\n,2\n", "line 3 .* the time"),
        ("t,a\n0,1\nnan,2\n", "line 3 .* the time"),
        ("t,a\n0,1\n1e999,2\n", "line 3 .* the time"),
        ("0,1\n1,2\n2,3\n", "line 1 .* numbers; add a header"),
        ("\ufeff0,1\n1,2\n2,3\n", "line 1 .* numbers; add a header"),
        ("0,\n1,2\n2,3\n", "line 1 .* numbers; add a header"),
        ('"1,000",5\n2000,6\n3000,7\n', "line 1 .* numbers; add a header"),
        ("1_0,5\n20,6\n30,7\n", "line 1 .* numbers; add a header"),
        ("\u22121,5\n0,6\n3,7\n", "line 1 .* numbers; add a header"),
        (",5\n0,6\n3,7\n", "line 1 .* numbers; add a header"),
        # As pandas writes a table with its index, which would be taken for the time.
        (",time,x\n0,0.0,1\n1,0.5,2\n2,1.5,3\n", "does not begin with the time"),
        (",x\n0,1\n1,2\n2,3\n", "does not begin with the time"),
        ("x,Time\n1,0\n2,1\n", "does not begin with the time"),
        # Nanoseconds since 1970: float64 has steps of 256 there.
        ("t,a\n1700000000000000000,1\n1700000000000000300,2\n", "than float64 resolves"),
        ("t,a\n1700000000000000000,1\n1700000000000000001,2\n", "than float64 resolves"),
        ("t,a\n0,1\n1,1_0\n", "line 3 .*'1,1_0'"),
        ("t,a\n0,1\n1,\u0661\n", "line 3 "),
        ("t,a\n0,1\n1,0x1p3\n", "line 3 "),
        ("t,a\n0,1\n1,1.2.3\n", "line 3 "),
        ("t;a\n0;1,5\n", "separated by semicolons; separate columns by commas"),
        ("t\ta\n0\t1\n", "separated by tabs"),
        ("t\n0\n", "names one column"),
        ("t,a\n0,1\n1,2,5\n", "line 3 .* 2 numbers expected"),
        ("t,a\n0,1\n1\n", "line 3"),
        ("t,a\n0,1\n", "1 observation"),
        ("t,a,b\n0,1,\n1,2,\n", "channel b"),
        ("t,a,\n0,1,2\n1,2,3\n", "column 3 has no name"),
        ("t,a,a\n0,1,2\n1,2,3\n", "column 3 is named a, as another is"),
        ("t,a\n1,1\n0,2\n", "sort"),
    ],
)
def test_bad_files(tmp_path, text, complaint):
    path = tmp_path / "series.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        read_csv(path)


def test_unix_times_are_read_to_the_last_digit(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("t,a\r\n1700000000.25,1\r\n1700000000.50,-2.5E-1\r\n")
    found = read_csv(path)
    assert found.times.tolist() == [1700000000.25, 1700000000.5]
    assert found.values.tolist() == [[1], [-0.25]]


def test_a_file_with_a_gap(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("t,a,b\n0,1,2\n0.5,,3\n2,4,nan\n")
    found = read_csv(path)
    assert found.names == ("a", "b")
    assert np.isnan(found.values).tolist() == [[False, False], [True, False], [False, True]]


@pytest.mark.parametrize("level", [1, 1e6 + 0.1])  # 14 times the latter has a mean beside it
def test_a_constant_channel_cannot_be_scaled(level):
    with pytest.raises(DataError, match="a never changes"):
        shooting.prepare([series(range(14), [[level]] * 14)], 2, log=False)


def test_gaps_of_a_long_series_outlive_float32():
    times = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 100_000))
    batch = shooting.prepare([series(times, np.sin(times)[:, None])], 5, log=False).batch
    exact = np.diff(batch["times"], axis=1)[:-1]
    found = np.diff(batch["times"].astype(np.float32), axis=1)[:-1]
    # Windows are about 5 long: a gap is off by the rounding of its two ends.
    assert np.abs(found - exact).max() < 2 * np.finfo(np.float32).eps * batch["times"].max()


@pytest.mark.parametrize("name", SYSTEMS)
def test_simulated_trajectories_solve_the_system(name):
    system = SYSTEMS[name]
    y0 = system.draw(np.random.default_rng(0), 2, outside=True)
    assert (np.abs((y0 - system.centre) / np.array(system.half)).max(1) > 1).all()
    h = 1e-5
    ys = system.solve(y0, np.array([[0, h, 2 * h]] * 2))
    # A central difference: its error is h^2 times the third derivative, below 1e-5 here.
    slope = (ys[:, 2] - ys[:, 0]) / (2 * h)
    assert slope == pytest.approx(system.field(ys[:, 1]), rel=1e-4, abs=1e-4)


def test_least_squares_finds_the_equations_from_clean_data():
    found = sindy.fit(
        sample(
            SYSTEMS["lotka-volterra"], trajectories=8, observations=200, noise=0.0, missing=0.0,
            irregular=False, seed=0,
        ), 2,
    )  # fmt: skip
    # Monomials 1, x, y, xx, xy, yy.
    expected = np.array([[0, 1.5, 0, 0, -1, 0], [0, 0, -3, 0, 1, 0]]).T
    assert found.coefficients == pytest.approx(expected, abs=0.05)
    assert (found.coefficients == 0).sum() >= 6


def test_least_squares_marks_what_escapes():
    runaway = sindy.Polynomial(np.array([[0.0], [0.0], [1.0]]), 2)  # y' = y^2, infinite at t = 1
    ys = runaway.solve(np.array([[1.0]]), np.linspace(0, 2, 5))
    assert ys[0, 1, 0] == pytest.approx(1 / (1 - 0.5), rel=1e-4)
    assert np.isnan(ys[0, -1, 0])
