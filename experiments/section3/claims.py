"""What the paper and the work we follow up on say, and what our runs say of it.

The rules by which a claim counts as reproduced are here, and were written before the runs but for
two mends: `error_falls` first asked a lower error of the second of two tolerances of equal NFE, and
equality within the margin first refuted a difference of whatever size was claimed (`Claim.found`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from experiments.harness.markdown import Table
from experiments.section3 import evidence, examined, tables
from experiments.section3.collect import Record
from experiments.section3.evidence import Pair, by_unit, done
from experiments.section3.intervals import Interval, Verdict, interval
from experiments.section3.tables import shown

REPRODUCED, NOT, OPEN = "reproduced", "not reproduced", "not decidable here"
OURS = {REPRODUCED: "shown", NOT: "refuted", OPEN: "not decided"}  # of claims that are not others'
# Of "about half": the ratio of evaluations backward and forward.
HALF = (1 / 3, 2 / 3)
# Of an ODE-Net trained finely: solvers that a flow would bear.
OTHER_SOLVERS = (("dopri5", 1e-5), ("dopri5", 1e-1), ("rk4", 1.0), ("rk4", 0.25), ("euler", 0.1))


@dataclass(frozen=True)
class Found:
    """What runs say of a claim: the verdict, the number it rests on, and how many runs.

    `difference` is the comparison it rests on, if it is one of test errors.
    """

    verdict: str
    number: str
    runs: int
    difference: Verdict | None = None


Judge = Callable[[Record, Mapping[Pair, Verdict]], Found | None]


@dataclass(frozen=True)
class Claim:
    """A claim, whose it is, the number it came with, and the rule it is judged by.

    `size` is the difference in points that the number says, where it is two test errors.
    """

    text: str
    whose: str
    number: str
    judge: Judge
    size: float | None = None

    def found(self, record: Record, verdicts: Mapping[Pair, Verdict]) -> Found | None:
        """What the rule says of the runs, except that a size in their interval is not refuted.

        The margin may be wider than what was claimed: models that are equal within it may differ by
        as much.
        """
        found = self.judge(record, verdicts)
        if found is None or found.verdict != NOT or found.difference is None or self.size is None:
            return found
        if not found.difference.interval.low <= self.size <= found.difference.interval.high:
            return found
        equal = "margin" in found.difference.words
        shown, as_claimed = (
            (f"equal within {evidence.margin(record):g} points", "large")
            if equal
            else ("different", "small")
        )
        words = f"{shown}; a difference as {as_claimed} as claimed is not excluded"
        return replace(found, verdict=words)


def difference(a: str, b: str, claimed: str) -> Judge:
    """Test error of `a` minus that of `b`, claimed to be `equal`, `lower` or `higher`.

    Equality is reproduced within the margin; a direction if the difference is one and has it.
    """

    def judge(record: Record, verdicts: Mapping[Pair, Verdict]) -> Found | None:
        if (a, b) not in verdicts:
            return None
        verdict = verdicts[a, b]
        small = "margin" in verdict.words
        if verdict.words.startswith("not decided"):
            found = OPEN
        elif claimed == "equal":
            found = REPRODUCED if small else NOT
        else:
            right = (verdict.interval.mean < 0) == (claimed == "lower")
            differs = verdict.words.startswith("different")
            found = REPRODUCED if differs and right else NOT
        number = f"{shown(verdict.interval, sign=True)} points: {verdict.words}"
        return Found(found, number, len(done(record, a)) + len(done(record, b)), verdict)

    return judge


def fewer_parameters(record: Record, verdicts: Mapping[Pair, Verdict]) -> Found | None:
    """Parameters of ODE-Net over those of ResNet-6: below a half."""
    a, b = (tables.values(record, name, "parameters") for name in ("odenet-adjoint", "resnet6"))
    if not a or not b:
        return None
    verdict = REPRODUCED if a[0] / b[0] < 0.5 else NOT
    return Found(verdict, f"{a[0]:,.0f} and {b[0]:,.0f}: {a[0] / b[0]:.2f}", len(a) + len(b))


def grows(record: Record, verdicts: Mapping[Pair, Verdict]) -> Found | None:
    """NFE forward of the last epoch minus that of the first, by the adjoint: above 0.

    The growth from the second epoch on is told beside it, and has no say: it was looked at after
    the runs, whose NFE falls from the first epoch to the second.
    """
    name = "odenet-adjoint"
    nfe = lambda run, epoch: run["rows"][min(epoch, len(run["rows"]) - 1)]["nfe_forward"]
    growth = _over_units(record, name, lambda run: nfe(run, -1) - nfe(run, 0))
    later = _over_units(record, name, lambda run: nfe(run, -1) - nfe(run, 1))
    first = _over_units(record, name, lambda run: nfe(run, 0))
    if growth is None or later is None or first is None:
        return None
    verdict = REPRODUCED if growth.low > 0 else NOT if growth.high <= 0 else OPEN
    text = (
        f"{shown(growth, sign=True)} to the {first.mean:.1f} of the first epoch; from the second "
        f"on, a look after the runs, {shown(later, sign=True)}"
    )
    return Found(verdict, text, len(done(record, name)))


def half_backward(record: Record, verdicts: Mapping[Pair, Verdict]) -> Found | None:
    """NFE backward over forward in the last epoch, by the adjoint: the interval is in `HALF`."""
    name = "odenet-adjoint"
    ratio = _over_units(
        record, name, lambda run: run["rows"][-1]["nfe_backward"] / run["rows"][-1]["nfe_forward"]
    )
    if ratio is None:
        return None
    inside = HALF[0] < ratio.low and ratio.high < HALF[1]
    outside = ratio.high < HALF[0] or ratio.low > HALF[1]
    verdict = REPRODUCED if inside else NOT if outside else OPEN
    return Found(verdict, f"ratio {shown(ratio)}", len(done(record, name)))


def error_falls(record: Record, verdicts: Mapping[Pair, Verdict]) -> Found | None:
    """Error of the logits when a trained net is solved by dopri5: less wherever NFE is more.

    Of the tightest solve, against which the others' errors are, nothing is said.
    """
    solved = examined.solver_rows(record, "odenet-adjoint").items()
    rows = {k: of for k, of in solved if k[0] == "dopri5" and any(r["logit_error"] for r in of)}
    if len(rows) < 2:
        return None
    mean = lambda key, of: sum(row[key] for row in of) / len(of)
    points = sorted((mean("nfe_forward", of), mean("logit_error", of)) for of in rows.values())
    falls = all(a[1] > b[1] for a in points for b in points if a[0] < b[0])
    text = ", ".join(f"{nfe:.0f}: {error:.0e}" for nfe, error in points)
    return Found(REPRODUCED if falls else NOT, text, len(next(iter(rows.values()))))


def is_a_flow(record: Record, verdicts: Mapping[Pair, Verdict]) -> Found | None:
    """Trained by dopri5 at 1e-3, the error with every one of `OTHER_SOLVERS` is the same."""
    return _changes(record, "odenet-adjoint", OTHER_SOLVERS, within=True)


def learnt_its_solver(name: str) -> Judge:
    """Trained with a coarse solver, the error by dopri5 at 1e-3 is another."""
    return lambda record, verdicts: _changes(record, name, (("dopri5", 1e-3),), within=False)


CLAIMS = (
    Claim("ODE-Net is as good as the ResNet", "paper", "0.42% and 0.41%",
          difference("odenet-adjoint", "resnet6", "equal"), 0.01),
    Claim("RK-Net is as good as the ResNet", "paper", "0.47% and 0.41%",
          difference("rknet", "resnet6", "equal"), 0.06),
    Claim("with a third of the parameters", "paper", "0.22 M and 0.60 M", fewer_parameters),
    Claim("More evaluations, less error (figure 3a)", "paper", "NFE: error", error_falls),
    Claim("NFE backward is about half of NFE forward (3c)", "paper", "0.5", half_backward),
    Claim("NFE grows in training (3d)", "paper", "", grows),
    Claim("ODE-Net is worse than ResNet-6", "follow-up", "0.65% and 0.45%",
          difference("odenet-adjoint", "resnet6", "higher"), 0.20),
    Claim("ResNet-1 is worse than ResNet-6", "follow-up", "0.64% and 0.45%",
          difference("resnet1", "resnet6", "higher"), 0.19),
    Claim("ODE-Net is as good as ResNet-1, of as many parameters", "follow-up", "0.65% and 0.64%",
          difference("resnet1", "odenet-adjoint", "equal"), -0.01),
    Claim("Depth helps: ResNet-1 is worse than ResNet-12", "here", "",
          difference("resnet1", "resnet12", "higher")),
    Claim("Euler with the adjoint by hand is as good as dopri5", "follow-up", "0.78% and 0.65%",
          difference("torch-euler", "odenet", "equal"), 0.13),
    Claim("Implicit Adams is worse than dopri5", "follow-up", "1.33% and 0.65%, their Adams being "
          "one Runge-Kutta step; ours has four of 0.25", difference("odenet-adams", "odenet",
                                                                     "higher"), 0.68),
    Claim("The adjoint trains as well as backpropagation through the steps", "here", "",
          difference("odenet-adjoint", "odenet", "equal")),
    Claim("JAX and torch end alike", "here", "",
          difference("torch-odenet", "odenet-adjoint", "equal")),
    Claim("Leaving out the last ReLU costs ODE-Net", "here", "",
          difference("odenet-adjoint-norelu", "odenet-adjoint", "higher")),
    Claim("and ResNet-1", "here", "", difference("resnet1-norelu", "resnet1", "higher")),
    Claim("Trained by dopri5 at 1e-3, ODE-Net is a flow: any finer or coarser solver from one rk4 "
          "step up will do", "here", "", is_a_flow),
    Claim("Trained with one Euler step, it has learnt its solver", "here", "",
          learnt_its_solver("odenet-euler1")),
    Claim("and with one rk4 step", "here", "", learnt_its_solver("odenet-rk4-1")),
    Claim("and with dopri5 at 1e-1", "here", "", learnt_its_solver("odenet-coarse")),
)  # fmt: skip


def judged(records: Mapping[str, Record]) -> Table:
    """The claims with a row for each study (by title) that has runs for one."""
    verdicts = {name: evidence.compared(record) for name, record in records.items()}
    rows = []
    for claim in CLAIMS:
        found = {n: claim.found(record, verdicts[n]) for n, record in records.items()}
        known = {name: one for name, one in found.items() if one is not None}
        head = claim.text, claim.whose, claim.number
        words = lambda one, claim=claim: OURS[one] if claim.whose == "here" else one
        rows += [(*head, f"**{words(f.verdict)}**", f.number, name, str(f.runs))
                 for name, f in known.items()] or [(*head, "not run", "", "", "")]  # fmt: skip
    headers = ("claim", "whose", "their number", "verdict", "ours", "data", "runs")
    return Table(headers, rows)


def _over_units(record: Record, variant: str, number: Callable[[Record], float]) -> Interval | None:
    """A number of every run, averaged within folds (or seeds); the interval over these."""
    units = by_unit(record, variant).values()
    means = [sum(map(number, runs)) / len(runs) for runs in units]
    return interval(means) if len(means) > 1 else None


def _changes(
    record: Record, name: str, solvers: tuple[tuple[str, float], ...], *, within: bool
) -> Found | None:
    """Whether changes of the solver leave the test error within the margin, or take it beyond."""
    changes = [examined.change(record, name, *solver) for solver in solvers]
    changes = [change for change in changes if not math.isnan(change.half)]
    if not changes:
        return None
    margin = evidence.margin(record)
    inside = all(-margin < change.low and change.high < margin for change in changes)
    beyond = any(change.low > margin or change.high < -margin for change in changes)
    if within:
        verdict = REPRODUCED if inside and len(changes) == len(solvers) else NOT if beyond else OPEN
    else:
        verdict = REPRODUCED if beyond else NOT if inside else OPEN
    worst = max(changes, key=lambda change: abs(change.mean))
    runs = sum("examined" in run for run in done(record, name))
    most = " at most" if len(solvers) > 1 else ""
    return Found(verdict, f"{shown(worst, sign=True)} points{most}", runs)
