"""Signs that a PPO run goes wrong while its numbers are still finite; each is reported once."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

BASELINE_STEPS = 10
"""Steps at the beginning that later ones are compared with."""
EXPLOSION = 10.0
"""How many standard deviations of an answer's reward are too far from where the run began."""
COLLAPSE = 0.2
"""What is left of the length of the first answers when they have collapsed."""
COMPARED = ("reward", "reward_std", "response_length")


class RunHealth:
    """Compares the metrics of PPO steps with those of the first ones."""

    def __init__(self, *, penalty_coef: float) -> None:
        """
        Args:
            penalty_coef: coefficient of the penalty, where a step's metrics do not bring their own.
        """
        self._penalty_coef = penalty_coef
        self._sums = dict.fromkeys(COMPARED, 0.0)
        self._steps = 0
        self._warned: list[str] = []

    def look(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a step's metrics, and warn of what has never been warned of.

        Args:
            step: its number.
            metrics: of the step; steps without finite rewards are passed over.
        """
        if not all(math.isfinite(metrics.get(name, math.nan)) for name in COMPARED):
            return
        if self._steps < BASELINE_STEPS:
            self._steps += 1
            for name in COMPARED:
                self._sums[name] += metrics[name]
            return
        reward, spread, length = (self._sums[name] / self._steps for name in COMPARED)
        charge = metrics.get("penalty_coef", self._penalty_coef) * metrics["penalty_per_answer"]
        # where all answers began with the same reward, it has no scale
        if spread and abs(metrics["reward"] - reward) > EXPLOSION * spread:
            self._warn(
                "reward",
                f"the mean reward is {metrics['reward']:.4g} at step {step}, it began at {reward:.4g} with a standard "
                f"deviation of {spread:.4g}: look at the answers (--print_answers) before you trust it",
            )
        if spread and abs(charge) > EXPLOSION * spread:
            self._warn(
                "penalty",
                f"the penalty of an answer is {charge:.4g} at step {step}, more than {EXPLOSION:g} standard deviations "
                f"of a reward ({spread:.4g}): the policy runs away from the reference, lower --actor_learning_rate or "
                "check --kl_ctl",
            )
        if metrics["response_length"] < COLLAPSE * length:
            self._warn(
                "length",
                f"answers have {metrics['response_length']:.1f} tokens at step {step}, they began with {length:.1f}: "
                "the reward may favour saying nothing",
            )

    def state_dict(self) -> dict[str, Any]:
        """What the first steps were like, and what was warned of."""
        return {"sums": dict(self._sums), "steps": self._steps, "warned": list(self._warned)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on comparing with the run's own beginning."""
        self._sums, self._steps, self._warned = dict(state["sums"]), state["steps"], list(state["warned"])

    def _warn(self, sign: str, text: str) -> None:
        if sign not in self._warned:
            self._warned.append(sign)
            logger.warning("%s", text)
