"""What a study is made of: variants of the training, sizes of the whole, single runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to train, repeated with several seeds.

    `examined` runs are tested once more after training, with other tolerances, solvers and images.
    `after` names the variant whose run of the same seed gives the weights to start from. Where
    `flags` and those of the preset differ, these count. `rate_of` names the variant whose learning
    rate it takes where rates were chosen, if not its own.
    """

    name: str
    title: str
    flags: str
    examined: bool = False
    after: str | None = None
    rate_of: str | None = None


@dataclass(frozen=True)
class Preset:
    """A size of the study: flags of every run, and `(variant names, seeds)` in running order.

    `examined_seeds` of each examined variant are looked at after training. `jobs` is how many runs
    go at once, None for as many as the machine has cores and memory (a GPU's memory is not asked
    for, so then on the CPU). After `minutes` no run begins. With `folds` a seed is as many runs,
    each tested on another part of all images. `rates` says that learning rates were chosen before.
    """

    flags: str
    blocks: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]
    examined_seeds: tuple[int, ...] = ()
    jobs: int | None = None
    minutes: float = float("inf")
    folds: int | None = None
    rates: bool = False
    dataset: str = "mnist"


@dataclass(frozen=True)
class Cell:
    """A variant with a seed, tested on one of `folds`: one run."""

    variant: Variant
    seed: int
    examined: bool
    fold: int | None = None
    folds: int | None = None

    @property
    def name(self) -> str:
        """The name of its run folder."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        return f"{self.variant.name}-seed{self.seed}{fold}"

    @property
    def flags(self) -> list[str]:
        """The flags of `mnist.py` that make it this run and no other of its variant.

        Folds begin from random numbers of their own, so that their networks are independent.
        """
        if self.fold is None or self.folds is None:
            return ["--seed", str(self.seed)]
        seed = self.seed * self.folds + self.fold
        return ["--seed", str(seed), "--folds", str(self.folds), "--fold", str(self.fold)]
