from __future__ import annotations

import pytest
import torch

from torch_node.blocks import TimeConv2d
from torch_node.models import MODELS, ODENet, build
from torch_node.normalise import NORMS


def fixed(name: str) -> dict:
    """Cheap settings for a forward pass."""
    return {"solver": "euler", "adjoint": "direct", "step_size": 0.5} if "ode" in name else {}


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts():
    assert count(build("odenet")) == 208_266
    assert count(build("rknet")) == 208_266
    assert count(build("resnet6")) == 576_778
    # A block has two 3x3 convolutions of 64 channels and two norms.
    assert count(build("resnet6")) - count(build("resnet1")) == 5 * (2 * 64 * 64 * 9 + 4 * 64)


@pytest.mark.parametrize("norm", NORMS)
def test_norms(norm):
    model = build("odenet", norm=norm)
    assert count(model) == 208_266
    assert count(build("resnet6", norm=norm)) == 576_778
    outside = [model.downsample.norm1, model.downsample.norm2, model.head.norm]
    within = [getattr(model.field, f"norm{i}") for i in (1, 2, 3)]
    groups = {"group1": 1, "group64": 64}.get(norm, 32)
    assert [layer.num_groups for layer in within] == [groups] * 3
    expected = torch.nn.BatchNorm2d if norm == "batch" else torch.nn.GroupNorm
    assert {type(layer) for layer in outside} == {expected}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("downsampling", ["conv", "residual"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_shape_and_dtype(name, downsampling, dtype, batch):
    model = build(name, downsampling=downsampling, **fixed(name)).to(dtype)
    logits, solution, _ = model(torch.rand(batch, 1, 28, 28, dtype=dtype))
    assert logits.shape == (batch, 10)
    assert logits.dtype == dtype
    assert (solution is None) == name.startswith("resnet")


@pytest.mark.parametrize(("downsampling", "side"), [("conv", 6), ("residual", 7)])
def test_features(downsampling, side):
    model = build("resnet1", downsampling=downsampling)
    assert model.downsample(torch.rand(2, 1, 28, 28)).shape == (2, 64, side, side)


def test_residual_downsampling_has_shortcuts_without_bias():
    state = build("odenet", downsampling="residual").downsample.state_dict()
    assert state["block1.shortcut.weight"].shape == (64, 64, 1, 1)
    assert "block1.shortcut.bias" not in state
    assert "conv1.bias" in state


def test_time_is_channel_zero():
    conv = TimeConv2d(4).double()
    x, t = torch.rand(2, 4, 5, 5).double(), torch.tensor(0.7).double()
    with_time = conv(t, x) - conv(torch.zeros_like(t), x)
    ones = torch.ones(2, 1, 5, 5).double()
    kernel = conv.weight[:, :1]
    torch.testing.assert_close(with_time, 0.7 * torch.nn.functional.conv2d(ones, kernel, padding=1))


def test_final_relu_matters():
    torch.manual_seed(0)
    with_relu, without = build("resnet1"), build("resnet1", final_relu=False)
    without.load_state_dict(with_relu.state_dict())
    x = torch.rand(2, 1, 28, 28)
    features = with_relu.blocks[0](with_relu.downsample(x))
    head = with_relu.head
    mean = torch.relu(head.norm(features)).mean(dim=(2, 3))
    torch.testing.assert_close(with_relu(x)[0], head.linear(mean))
    mean = head.norm(features).mean(dim=(2, 3))
    torch.testing.assert_close(without(x)[0], head.linear(mean))


def test_odenet_solves_from_0_to_1():
    model = build("odenet")
    assert isinstance(model, ODENet)
    solution = model(torch.rand(1, 1, 28, 28)).solution
    assert solution.step_times[0] == 0.0
    assert solution.step_times[-1] == 1.0


@pytest.mark.parametrize("name", ["resnet", "resnet0", "odenet6", "ODENet", ""])
def test_unknown_model_lists_names(name):
    with pytest.raises(ValueError, match="resnet6, resnet1, rknet, odenet, or resnet<N>"):
        build(name)


def test_unknown_downsampling_lists_names():
    with pytest.raises(ValueError, match="'pool' is unknown; choose one of conv, residual"):
        build("resnet1", downsampling="pool")
    with pytest.raises(ValueError, match="'layer' is unknown; choose one of group, group1, gr"):
        build("resnet1", norm="layer")


def test_odenet_needs_a_solver():
    with pytest.raises(ValueError, match="needs a solver"):
        build("odenet", solver=None, adjoint=None)
