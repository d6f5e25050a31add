"""Settings of what scores answers. The type of the section chooses the reward source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dschat.code_execution.apps_tests import GradingRules, RewardShape
from dschat.code_execution.comparison import Comparison
from dschat.code_execution.records import MEBIBYTE
from dschat.code_execution.sandbox import Mode
from dschat.config.flag import Section, flag
from dschat.errors import UserError


class RewardConfig(Section):
    """Settings of one reward source; the base of all, from which a new one starts."""

    group: ClassVar[str] = "reward"
    needs_tests: ClassVar[bool] = False
    """Whether problems without tests that can be run are left out of the prompts."""

    @property
    def uses_reward_model(self) -> bool:
        """Whether the checkpoint of step 2 gives scores, so that its frozen copy has to be loaded."""
        return False


@dataclass(frozen=True)
class LearnedRewardConfig(RewardConfig):
    """Scores from the reward model that step 2 trained, from Python functions, or from both."""

    reward_function: list[str] = flag(
        [],
        help="package.module:function of functions of (prompts, answers, records) that return one score per answer.",
    )
    reward_function_weight: list[float] = flag([], help="Weight of each --reward_function in the sum; default: 1 each.")
    reward_model_weight: float = flag(
        1.0, help="Weight of the reward model in the sum; 0: it is not loaded, functions alone score."
    )

    @property
    def uses_reward_model(self) -> bool:
        """Not where functions alone score."""
        return self.reward_model_weight != 0

    @property
    def function_weights(self) -> list[float]:
        """One weight for each function."""
        return self.reward_function_weight or [1.0] * len(self.reward_function)

    def check(self) -> None:
        """Raise UserError for weights that do not fit the functions."""
        functions, weights = self.reward_function, self.reward_function_weight
        if weights and len(weights) != len(functions):
            raise UserError(
                f"--reward_function_weight has {len(weights)} numbers for {len(functions)} functions; give one for each"
            )
        if not functions and self.reward_model_weight == 0:
            raise UserError("--reward_model_weight 0 leaves nothing that scores answers; name a --reward_function")


@dataclass(frozen=True)
class UnitTestRewardConfig(RewardConfig):
    """Scores from running the answers' programs on the problems' tests."""

    needs_tests: ClassVar[bool] = True

    code_sandbox: Mode = flag(
        "auto", help="Where programs run. auto: the first of bwrap and landlock that passes a self-test."
    )
    allow_unsandboxed: bool = flag(
        False, help="Run programs even where no sandbox works, on a machine that holds nothing of value."
    )
    test_time_limit: float = flag(
        GradingRules.time_limit,
        above=0,
        help="CPU seconds of one test; all tests of a program together get eight times as much.",
    )
    test_memory_limit_mb: int = flag(
        GradingRules.memory_limit // MEBIBYTE,
        at_least=256,
        advice="Python and numpy need about half of that",
        help="MiB of address space of one test.",
    )
    max_tests: int = flag(
        GradingRules.max_tests,
        at_least=0,
        help="Tests run per problem at most, spread evenly over those it has; 0: all.",
    )
    grading_workers: int = flag(
        0, at_least=0, help="Programs graded at once per process; 0: its share of the cores but one."
    )
    apps_compare: Comparison = flag(
        GradingRules.comparison,
        help="strict: outputs must agree but for white space. reference: with the published leniencies, which pay for "
        "tokens in any order.",
    )
    reward_shape: RewardShape = flag(
        GradingRules.reward_shape,
        help="published: -1 does not compile, -0.6 error or time-out, else -0.3 + 1.3 times the share of tests that "
        "pass. all_or_nothing: 1 if all pass, else 0.",
    )
