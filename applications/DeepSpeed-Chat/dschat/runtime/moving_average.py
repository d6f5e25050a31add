"""Exponential moving average of a model in training; each rank averages its own share of every weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dschat.errors import UserError
from dschat.runtime.distributed import gather_shares, rank, whole_state_dict, world_size


class MovingAverage:
    """average <- decay * average + (1 - decay) * weight after every optimizer step, in float32.

    The average starts at the weights themselves. Frozen weights are not averaged: they are their own average. A rank
    keeps 1 / world size of the trained weights, under ZeRO-3 the part that it holds anyway.
    """

    def __init__(self, model: nn.Module, *, decay: float, device: torch.device, in_host_memory: bool) -> None:
        """Start from the weights of `model`.

        Args:
            model: the module of the DeepSpeed engine that trains it.
            decay: weight of the past, at least 0 and below 1.
            device: where this rank computes.
            in_host_memory: keep the average there and not on the device.
        """
        self._decay = decay
        self._device = device
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        place = torch.device("cpu") if in_host_memory else device
        self._averages = {
            name: _share(weight).to(place, torch.float32, copy=True) for name, weight in self._weights.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after an optimizer step."""
        for name, average in self._averages.items():
            average.lerp_(_share(self._weights[name]).to(average), 1.0 - self._decay)

    def whole_state_dict(self, model: nn.Module) -> dict[str, Tensor] | None:
        """All weights, whole, such as [V, D], on the CPU, the trained ones averaged, on rank 0; None elsewhere.

        In the precision of the weights. All ranks call it together.
        """
        weights = whole_state_dict(model)
        for name, average in self._averages.items():
            shape = getattr(self._weights[name], "ds_shape", self._weights[name].shape)
            whole = gather_shares(average.to(self._device), shape.numel()).view(shape)
            if weights is not None:
                weights[name] = whole.to("cpu", weights[name].dtype)
        return weights

    def state_dict(self) -> dict[str, Tensor]:
        """This rank's share of the averages, by the weights' names, each [N] float32."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the shares [N] that `state_dict` gave on the same rank of as many.

        Raises:
            UserError: it is of another model, ZeRO stage 3 or not, or number of ranks.
        """
        shapes, saved = ({name: tuple(share.shape) for name, share in one.items()} for one in (self._averages, state))
        if shapes != saved:
            raise UserError(
                f"the saved moving average does not fit rank {rank()} of {world_size()}; resume with the same model, "
                "the same number of ranks and the same --actor_zero_stage"
            )
        for name, average in self._averages.items():
            average.copy_(state[name])


def _share(weight: nn.Parameter) -> Tensor:
    """This rank's part [n] of a weight; n is the same on all ranks but, where the weight is whole, the last ones."""
    held: Tensor | None = getattr(weight, "ds_tensor", None)
    if held is not None:
        return held.detach()
    flat = weight.detach().view(-1)
    size = -(-flat.numel() // world_size())
    return flat[rank() * size : (rank() + 1) * size]
