"""What `benchmark.py` shows: ratios, and whether they compare the same work."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.harness.figures import BLUE, ORANGE, bare, save
from experiments.harness.markdown import table

# Columns of ratios: whom JAX is compared with. An absent gradient means inference or a ResNet.
RIVALS = {
    "torch": ("torch direct", "torch"),
    "torch adjoint": ("torch adjoint",),
    "torch.compile": ("compiled direct", "compiled"),
    "others": ("torch handwritten", "torchode direct", "torchode", "scipy"),
}
HEADINGS = ("", "JAX gradient", "JAX ms", "torch ms", *(f"/ {name}" for name in RIVALS),
            "steps", "NFE fwd/bwd", "compile s cold/warm", "peak MB")  # fmt: skip
LEGEND = "Columns that begin with / are JAX's time divided by theirs (median of pairs)."


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What the work of two sides differs in, in words; empty if it is the same work.

    The gradients of `direct` and `checkpoint` are one and the same, by the steps of the forward
    solve: what is recomputed for them is no different work. Solves backwards are compared.
    """
    found = []
    for key, words in (
        ("steps", "accepted steps"),
        ("rejected", "rejected steps"),
        ("nfe_forward", "NFE"),
    ):
        if key in ours and key in theirs and ours[key] != theirs[key]:
            found.append(f"{words} {ours[key]:g} against {theirs[key]:g}")
    kinds = [_gradient(side) for side in (ours, theirs)]
    if kinds[0] != kinds[1]:
        found.append(f"gradient {kinds[0]} against {kinds[1]}")
    elif kinds[0] == "adjoint" and ours["nfe_backward"] != theirs["nfe_backward"]:
        found.append(f"backward NFE {ours['nfe_backward']:g} against {theirs['nfe_backward']:g}")
    return ", ".join(found)


def _gradient(side: Mapping[str, Any]) -> str:
    solved_backwards = {"adjoint", "handwritten"} & set(side["side"].split())
    return "adjoint" if solved_backwards else "by the steps"


def same_trajectory(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two sides took as many steps: otherwise no ratio of their times means anything."""
    keys = ("steps", "rejected") if "steps" in ours and "steps" in theirs else ("nfe_forward",)
    return all(ours[key] == theirs[key] for key in keys)


def ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Median and range of the ratio of times, sample by sample; None where steps differ."""
    words = difference(ours, theirs)
    found: dict[str, Any] = {"against": theirs["side"], "difference": words, "ratio": None}
    found["seconds"] = statistics.median(theirs["samples"])
    if same_trajectory(ours, theirs):
        pairs = [a / b for a, b in zip(ours["samples"], theirs["samples"], strict=True)]
        found |= {"ratio": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}
    return found


def cells(contest: Mapping[str, Any]) -> list[tuple[list[str], list[str]]]:
    """A contest's table rows, one a JAX side, each with what its ratios must be read with."""
    sides = {side["side"]: side for side in contest["sides"]}
    rows = []
    for name, ours in sides.items():
        if not name.startswith("jax") or "seconds" not in ours:
            continue
        first = next((sides[s] for s in RIVALS["torch"] if s in sides), None)
        row = [contest["name"], name.removeprefix("jax").strip() or "-", spread(ours)]
        row.append(spread(first) if first else "-")
        notes: list[str] = []
        for names in RIVALS.values():
            row.append(", ".join(_ratio(r, notes) for r in ours["ratios"] if r["against"] in names))
        compiling = [_number(ours.get(f"{cache}_seconds"), ".1f") for cache in ("cold", "warm")]
        row += [f"{ours['steps']:g}" if ours.get("steps") else "-", _nfe(ours)]
        row += ["/".join(compiling), _number(ours.get("peak_mb"), ".0f")]
        rows.append((row, notes))
    return rows


def spread(side: Mapping[str, Any]) -> str:
    """Median and range in milliseconds, three digits."""
    numbers = (side["seconds"], min(side["samples"]), max(side["samples"]))
    median, fastest, slowest = (f"{1e3 * s:.{0 if s >= 0.1 else 1}f}" for s in numbers)
    return f"{median} ({fastest}-{slowest})"


def _ratio(found: Mapping[str, Any], notes: list[str]) -> str:
    """A ratio; with a footnote if it compares different work, and a dash if it means nothing."""
    if found["difference"]:
        alone = found["ratio"] is None and "seconds" in found
        took = f"; it took {1e3 * found['seconds']:.3g} ms" if alone else ""
        notes.append(f"{found['against']}: {found['difference']}{took}")
    text = _number(found["ratio"], ".2f" if (found["ratio"] or 1) >= 0.1 else ".3f")
    return f"{text}*" if found["difference"] else text


def _nfe(side: Mapping[str, Any]) -> str:
    if not side["nfe_forward"]:
        return "-"
    return "/".join(f"{side[k]:g}" for k in ("nfe_forward", "nfe_backward") if side.get(k))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def markdown(record: Mapping[str, Any]) -> str:
    """The table for a page, with what made it and what its marks mean."""
    body, notes = [], []
    for contest in record["contests"]:
        for row, more in cells(contest):
            body.append(row)
            notes += [f"{row[0]}, {row[1]} / {note}" for note in more]
    text = f"{table(HEADINGS, body)}\n{LEGEND}"
    if notes:
        text += "\n\n\\* Not the same work:\n\n" + "\n".join(f"- {note}" for note in notes)
    unmeasured = [f"{name}: {why}" for name, why in record["unmeasured"].items()]
    if unmeasured:
        text += "\n\nNot measured: " + "; ".join(unmeasured) + "."
    if busy := warning(record):
        text += f"\n\n**{busy}**"
    return text + "\n"


def warning(record: Mapping[str, Any]) -> str:
    """A sentence if the machine was busy before the run began, else nothing."""
    if record["load_before"] < 0.25 * record["cpu_count"]:
        return ""
    return (
        f"The machine was busy (load {record['load_before']:.1f} on {record['cpu_count']} cores): "
        "threads that wait for each other then slow one side more than another, and these ratios "
        "mean little."
    )


def made_by(record: Mapping[str, Any]) -> str:
    """Command, commit and machine of a record."""
    return (
        f"Made by `{record['command']}`, commit {str(record['git_commit'])[:12]}, "
        f"{record['machine']}, float32, batch {record['batch_size']}, {record['repeats']} samples "
        f"a side, load {record['load_before']:.1f} before and {record['load_after']:.1f} after."
    )


def plot_ratios(record: Mapping[str, Any], path: Path) -> None:
    """A panel a question, a bar a way to compute: JAX's time where the fastest rival takes one."""
    panels: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for contest in record["contests"]:
        model, _, question = contest["name"].rpartition(", ")
        for gradient, found in _fastest_rivals(contest).items():
            panels.setdefault(question, []).append((f"{model} {gradient}".strip(), found))
    if not panels:
        return
    heights = [len(bars) + 1 for bars in panels.values()]
    figure = Figure(figsize=(8, 0.3 * sum(heights) + 0.8), dpi=110, layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (question, bars) in zip(grid, panels.items(), strict=True):
        for place, (_, found) in enumerate(bars):
            color = BLUE if found["ratio"] <= 1 else ORANGE
            axes.barh(place, found["ratio"], color=color, height=0.7)
            axes.plot([found["lowest"], found["highest"]], [place, place], color="black", lw=1)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_title(question, loc="left", fontsize=10)
        axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
        axes.set_xlim(left=0)
        axes.invert_yaxis()
        bare(axes)
    grid[-1].set_xlabel("time of JAX / of its fastest rival with the same work; line: range")
    save(path, figure)


def _fastest_rivals(contest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """For each gradient on the most devices it ran on, the ratio to the fastest of the same work.

    `checkpoint` is left out where there is `direct`: it is the same gradient, slower.
    """
    names = [side["side"].removeprefix("jax").strip() for side in contest["sides"]]
    found: dict[str, Mapping[str, Any]] = {}
    for name, side in zip(names, contest["sides"], strict=True):
        same = [r for r in side.get("ratios", ()) if r["ratio"] and not r["difference"]]
        if same and not (name == "checkpoint" and "direct" in names):
            found[name.partition("on ")[0].strip()] = max(same, key=lambda r: r["ratio"])
    return found
