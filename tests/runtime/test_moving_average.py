"""The moving average against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dschat.errors import UserError
from dschat.runtime.moving_average import MovingAverage

CPU = torch.device("cpu")
DECAY = 0.992


def make_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)).bfloat16()
    model[1].bias.requires_grad_(False)
    return model


def average_of(model: nn.Module) -> MovingAverage:
    return MovingAverage(model, decay=DECAY, device=CPU, in_host_memory=False)


def train(model: nn.Module, steps: int, *, seed: int = 1) -> list[dict[str, torch.Tensor]]:
    """Change the trained weights and return them after each step, in float64."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(steps):
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn(weight.shape, generator=generator).bfloat16())
        seen.append({name: weight.detach().double().clone() for name, weight in model.named_parameters()})
    return seen


def test_the_average_equals_the_published_recursion() -> None:
    model = make_model()
    expected = {name: weight.detach().double().clone() for name, weight in model.named_parameters()}
    average = average_of(model)
    for weights in (train(model, 1, seed=seed)[0] for seed in range(40)):
        average.update()
        expected = {name: DECAY * value + (1 - DECAY) * weights[name] for name, value in expected.items()}
    found = average.whole_state_dict(model)
    assert found is not None
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert weight.dtype == torch.bfloat16
        torch.testing.assert_close(weight.double(), expected[name], atol=2e-2, rtol=2e-2)
    for name, share in average.state_dict().items():  # float32: steps this small are lost in 16 bits
        torch.testing.assert_close(share.double(), expected[name].flatten(), atol=1e-5, rtol=1e-5)
    assert "1.bias" not in average.state_dict()


def test_the_weights_are_left_as_they_are() -> None:
    model = make_model()
    average = average_of(model)
    after = train(model, 3)[-1]
    average.update()
    average.whole_state_dict(model)
    assert all(torch.equal(weight.double(), after[name]) for name, weight in model.named_parameters())


def test_a_restored_average_goes_on_as_if_it_had_not_stopped() -> None:
    model = make_model()
    whole = average_of(model)
    train(model, 1)
    whole.update()
    again = average_of(model)
    again.load_state_dict({name: share.clone() for name, share in whole.state_dict().items()})
    train(model, 1, seed=2)
    for average in (whole, again):
        average.update()
    for name, share in whole.state_dict().items():
        assert torch.equal(share, again.state_dict()[name])


def test_an_average_of_another_model_is_refused() -> None:
    average = average_of(make_model())
    with pytest.raises(UserError, match="does not fit rank 0 of 1; resume with the same model"):
        average.load_state_dict({"0.weight": torch.zeros(3)})
