"""What a person sees of a run of mnist.py: a step, an epoch, and the table at its end."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.harness.command import show

# Table 1 of the paper: test error in per cent and parameters in millions, after 160 epochs.
PAPER = {
    "resnet6": ("ResNet", 0.41, 0.60),
    "rknet": ("RK-Net", 0.47, 0.22),
    "odenet": ("ODE-Net", 0.42, 0.22),
}

# How the epoch was selected whose weights are a run's result.
SELECTED = {
    "last": "the last",
    "train_loss": "that of least training loss",
    "validation": "that of least validation loss",
}


def step_status(metrics: dict[str, float]) -> str:
    """One training step in words."""
    status = f"loss {metrics['loss']:.3f}  accuracy {metrics['accuracy']:.1%}"
    if metrics["nfe_forward"]:
        status += f"  NFE {metrics['nfe_forward']:.0f}+{metrics['nfe_backward']:.0f}"
    return status


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch of metrics.jsonl as a line of text."""
    parts = [
        f"epoch {row['epoch']}/{epochs}",
        f"train loss {row['train_loss']:.4f}",
        f"accuracy {row['train_accuracy']:.2%}",
        *([f"validation loss {row['validation_loss']:.4f}"] if "validation_loss" in row else []),
        f"test error {row['test_error']:.2f} %",
    ]
    if row["nfe_forward"]:
        parts.append(f"NFE {row['nfe_forward']:.1f} forward, {row['nfe_backward']:.1f} backward")
    parts.append(f"{row['seconds_train']:.1f} s + {row['seconds_eval']:.1f} s evaluation")
    return "  ".join(parts)


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print summary.json as a small table, with the paper's row where the paper has one."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name in ("", "test error", "parameters", "NFE forward", "NFE backward", "time per epoch"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row(
        f"this run, {summary['model']}",
        f"{summary['test_error']:.2f} %",
        f"{summary['parameters']:,}",
        count(summary["nfe_forward"]),
        count(summary["nfe_backward"]),
        f"{summary['seconds_per_epoch']:.1f} s",
    )
    if summary["model"] in PAPER:
        name, error, millions = PAPER[summary["model"]]
        table.add_row(f"paper, {name}", f"{error:.2f} %", f"{millions:.2f} M", "", "", "")
    console.print(table)
    epochs = "1 epoch" if summary["epochs"] == 1 else f"{summary['epochs']} epochs"
    data = f"this run: {summary['data']}, {epochs}"
    if summary["model"] in PAPER:
        data += "; paper: MNIST, 60,000 train + 10,000 test, 160 epochs with random crops"
    for line in (
        data,
        f"tested: the weights after epoch {summary['selected_epoch']}, selected as "
        f"{SELECTED[summary['selected_by']]}",
        f"first step {summary['first_step_seconds']:.1f} s, with compilation; not in the time per "
        "epoch",
        f"run folder {summary['run']}",
    ):
        show(console, line)


def count(value: float | None) -> str:
    """A mean number of evaluations; a dash where there is no solve."""
    return f"{value:.1f}" if value else "-"
