import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.classify.config import Config, describe, from_json, parse
from experiments.classify.resolve import FREE_ON_RESUME, learner_arguments, resolve
from experiments.harness.errors import ConfigError
from experiments.harness.flags import contradictions, to_json
from experiments.harness.schedule import learning_rate


def settled(*flags):
    return resolve(parse(flags))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], ("dopri5", "direct", None, 0.9)),
        (["--framework", "torch"], ("dopri5", "adjoint", None, 0.9)),
        (["--model", "rknet"], ("rk4", "direct", 0.25, 0.9)),
        (["--framework", "torch", "--model", "rknet"], ("rk4", "direct", 0.25, 0.9)),
        (["--model", "rknet", "--step-size", "0.5"], ("rk4", "direct", 0.5, 0.9)),
        (["--model", "rknet", "--t1", "3"], ("rk4", "direct", 0.75, 0.9)),
        (["--model", "rknet", "--solver", "dopri5"], ("dopri5", "direct", None, 0.9)),
        (["--solver", "adams"], ("adams", "checkpoint", None, 0.9)),
        (
            ["--solver", "implicit_adams", "--step-size", "0.5"],
            ("implicit_adams", "direct", 0.5, 0.9),
        ),
        (["--model", "resnet6", "--optimizer", "adam"], (None, None, None, None)),
    ],
)
def test_defaults_that_depend_on_other_flags(flags, expected):
    config = settled(*flags)
    solver, momentum = config.solver, config.training.momentum
    assert (solver.solver, solver.adjoint, solver.step_size, momentum) == expected


def test_validation_images_select_the_epoch_where_there_are_any():
    assert settled().training.select == "last"
    assert settled("--validation", "9").training.select == "validation"
    assert settled("--validation", "9", "--select", "last").training.select == "last"


def test_learning_rate_follows_the_optimiser():
    assert settled("--optimizer", "sgd").training.lr > settled("--optimizer", "adam").training.lr
    assert settled("--optimizer", "adam", "--lr", "0.5").training.lr == 0.5


@pytest.mark.parametrize("flags", [[], ["--model", "rknet"], ["--model", "resnet1"]])
def test_resolving_twice_changes_nothing_and_json_keeps_all(flags):
    config = settled(*flags, "--data-dir", "/somewhere", "--no-final-relu")
    assert resolve(config) == config
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    assert config.data.data_dir.name == "somewhere"
    assert not config.model.final_relu


def test_what_an_earlier_version_saved_is_a_run_with_the_defaults_of_newer_flags():
    saved = to_json(settled())
    del saved["solver"]["t1"], saved["training"]["kinetic_weight"], saved["model"]["norm"]
    assert from_json(saved) == settled()
    plain = describe(settled())
    assert "t1" not in plain
    assert "weight" not in plain
    assert "norm" not in plain
    assert "jax; norm batch; " in describe(settled("--norm", "batch"))
    flags = ["--t1", "2", "--kinetic-weight", "0.1", "--jacobian-weight", "0.2"]
    assert "to t1 2, gradient" in describe(settled(*flags))
    assert "kinetic weight 0.1; jacobian weight 0.2" in describe(settled(*flags))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--rtol", "-1"], "--rtol is -1"),
        (["--atol", "0"], "--atol is 0"),
        (["--lr", "nan"], "--lr is nan"),
        (["--lr", "inf"], "--lr is inf"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--max-steps", "0"], "--max-steps is 0"),
        (["--limit-train", "0"], "--limit-train is 0"),
        (["--step-size", "2", "--solver", "rk4"], "--step-size is 2"),
        (["--momentum", "1"], "--momentum is 1"),
        (["--seed", "-1"], "--seed is -1"),
        (["--model", "resnet0"], "--model resnet0"),
        (["--model", "lstm"], "--model lstm is unknown; choose odenet"),
        (["--model", "resnet6", "--solver", "euler"], "--solver means nothing to resnet6"),
        (["--model", "resnet6", "--step-size", "1"], "--step-size means nothing"),
        (["--model", "resnet6", "--t1", "2"], "--t1 means nothing to resnet6"),
        (["--model", "resnet1", "--kinetic-weight", "1"], "--kinetic-weight means nothing"),
        (["--model", "resnet1", "--jacobian-weight", "1"], "--jacobian-weight means nothing"),
        (["--t1", "0"], "--t1 is 0"),
        (["--kinetic-weight", "-1"], "--kinetic-weight is -1"),
        (["--jacobian-weight", "nan"], "--jacobian-weight is nan"),
        (["--t1", "0.5", "--solver", "rk4", "--step-size", "1"], "at most --t1 (0.5)"),
        (["--optimizer", "adam", "--momentum", "0.5"], "--momentum belongs to"),
        (["--warmup", "5"], "--warmup is 5; at least 0 and below --epochs (5)"),
        (["--select", "validation"], "--select validation needs images for it: --validation N"),
        (["--validation", "-1"], "--validation is -1"),
        (["--folds", "1", "--fold", "0"], "--folds is 1"),
        (["--folds", "5"], "--folds K and --fold k go together"),
        (["--fold", "0"], "--folds K and --fold k go together"),
        (["--folds", "5", "--fold", "5"], "--fold is 5; 0 to 4 expected"),
        (["--framework", "mxnet"], "invalid choice 'mxnet'"),
        (["--epochs", "2.5"], "--epochs"),
        (["--sovler", "euler"], "--sovler"),
        (["stray"], "stray"),
        (["--seed"], "--seed"),
    ],
)
def test_a_bad_value_is_one_sentence_naming_the_flag(flags, named):
    with pytest.raises(ConfigError) as error:
        settled(*flags)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_help_is_grouped_with_defaults_and_ends_with_examples(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as exit_:
        parse(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "dopri5 for odenet" in text
    assert text.index("solver options") < text.index("training options") < text.index("examples:")
    for group in dataclasses.fields(Config):
        for field in dataclasses.fields(group.default):
            flag = "model" if field.name == "name" else field.name.replace("_", "-")
            found_in_data = flag in ("channels", "classes")
            assert (f"--{flag}" in text) != found_in_data


def test_contradictions_name_what_changed_and_leave_free_what_is_free():
    saved = settled("--epochs", "3")
    allowed = parse(["--epochs", "9", "--device", "cpu", "--tfds-dir", "/x"], default=saved)
    assert contradictions(saved, allowed, FREE_ON_RESUME) == []
    assert contradictions(saved, parse(["--lr", "0.1"], default=saved), FREE_ON_RESUME) == []
    changed = parse(["--lr", "0.2", "--model", "rknet"], default=saved)
    assert contradictions(saved, changed, FREE_ON_RESUME) == [
        "--model rknet (the run has odenet)",
        "--lr 0.2 (the run has 0.1)",
    ]


def test_a_configuration_of_another_version_is_named():
    saved = to_json(settled())
    saved["model"]["layers"] = 3
    with pytest.raises(ConfigError, match="another version"):
        from_json(saved)


def test_learner_arguments_of_a_resnet_have_no_solver():
    arguments = learner_arguments(settled("--model", "resnet6", "--optimizer", "adam"))
    assert arguments["solver"] is None
    assert arguments["adjoint"] is None
    assert arguments["momentum"] == 0.0


def test_description_has_what_a_title_needs():
    text = describe(settled("--model", "rknet", "--seed", "3"))
    for part in ("rknet in jax", "rk4 step 0.25", "gradient direct", "seed 3"):
        assert part in text


def test_steps_schedule_is_the_papers():
    def rate(epoch):
        return learning_rate("steps", 0.1, step=epoch * 10, steps_per_epoch=10, epochs=160)

    rates = [rate(epoch) for epoch in (0, 59, 60, 99, 100, 139, 140, 159)]
    assert rates == pytest.approx([0.1, 0.1, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])


@given(
    schedule=st.sampled_from(["cosine", "steps", "plateau", "constant"]),
    epochs=st.integers(1, 200),
    steps=st.integers(1, 500),
)
def test_schedules_start_at_the_base_and_never_rise(schedule, epochs, steps):
    total = epochs * steps
    picked = sorted({0, total // 3, total // 2, total - 1})
    rates = [
        learning_rate(schedule, 0.3, step=step, steps_per_epoch=steps, epochs=epochs)
        for step in picked
    ]
    assert rates[0] == 0.3
    assert all(before >= after > 0 for before, after in zip(rates, rates[1:], strict=False))


def test_cosine_is_half_at_half_time():
    rate = learning_rate("cosine", 0.2, step=50, steps_per_epoch=10, epochs=10)
    assert math.isclose(rate, 0.1)


@pytest.mark.parametrize("schedule", ["cosine", "constant", "steps", "plateau"])
def test_a_warm_up_rises_linearly_into_the_schedule(schedule):
    at = lambda step, warmup: learning_rate(
        schedule, 0.2, step=step, steps_per_epoch=8, epochs=10, warmup=warmup
    )
    for step in range(80):
        assert at(step, 1.5) == pytest.approx(at(step, 0) * min(1, (step + 1) / 12))


def test_unknown_schedule():
    with pytest.raises(ValueError, match="cosine, steps, plateau or constant"):
        learning_rate("linear", 0.1, step=0, steps_per_epoch=1, epochs=1)


def test_plateau_is_pytorchs():
    """Falling, rising, equal and almost equal losses, until the least rate is reached."""
    generator = np.random.default_rng(0)
    losses = [*np.exp(-np.arange(20) / 5), *generator.uniform(0.01, 0.2, 200)]
    losses += [losses[-1] * (1 - 1e-5)] * 20
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=7, min_lr=1e-6
    )
    for epoch in range(1, len(losses) + 1):
        schedule.step(losses[epoch - 1])
        found = learning_rate(
            "plateau", 0.1, step=0, steps_per_epoch=1, epochs=1, losses=losses[:epoch]
        )
        assert found == optimizer.param_groups[0]["lr"]
    assert found == 1e-6
