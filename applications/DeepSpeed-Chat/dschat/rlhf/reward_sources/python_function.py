"""Scores from a Python function of the user's."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dschat.errors import UserError
from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores

RewardFunction = Callable[[Sequence[str], Sequence[str], Sequence[dict[str, Any]]], Sequence[float] | Tensor]
"""Called with B prompts, B answers and their B records of the dataset; gives B scores, higher is better."""


def load_reward_function(name: str) -> RewardFunction:
    """The function that --reward_function `package.module:function` names; the working directory is searched too.

    Raises:
        UserError: there is no such module or function, or it does not take prompts, answers and records.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise UserError(f"--reward_function {name} must look like package.module:function")
    # the launcher puts the program's folder on the path, not the one where the user is
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        raise UserError(
            f"--reward_function {name}: there is no module {error.name} in {here} or among the installed packages"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--reward_function {name}: {module.__file__} has no function {attribute}{hint}")
    try:
        inspect.signature(function).bind([], [], [])
    except TypeError as error:
        raise UserError(f"--reward_function {name} must take (prompts, answers, records): {error}") from error
    return function


@dataclass(frozen=True)
class FunctionReward(RewardSource):
    """What a function says about all answers of a rollout at once."""

    name: str
    """As given on the command line, for messages."""
    function: RewardFunction

    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores [B] float32, 0 in unusable rows.

        Raises:
            UserError: the function did not give one finite number for each answer.
        """
        result = self.function(list(rollout.prompts), list(rollout.answers), list(rollout.records))
        device, rows = rollout.sequences.device, len(rollout.records)
        try:
            scores = torch.as_tensor(result, dtype=torch.float32).detach().to(device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--reward_function {self.name} returned {type(result).__name__} that is no list of numbers: {error}"
            ) from error
        if scores.shape != (rows,):
            given = f"{len(scores)} scores" if scores.dim() == 1 else f"scores of shape {list(scores.shape)}"
            raise UserError(
                f"--reward_function {self.name} returned {given} for {rows} answers; it must give one for each"
            )
        scores = torch.where(rollout.usable, scores, 0.0)
        broken = (~scores.isfinite()).nonzero().flatten().tolist()
        if broken:
            answer = rollout.answers[broken[0]]
            raise UserError(
                f"--reward_function {self.name} returned {scores[broken[0]].item()} for the answer {answer!r}; scores "
                "must be finite"
            )
        return SequenceScores(scores)
