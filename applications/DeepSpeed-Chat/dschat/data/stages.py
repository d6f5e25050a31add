"""The stages of training as types: which texts of a row each learns from, its share of the data, its tokenised rows.

A further stage is one more class here; nothing else in this package asks which stage it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from datasets import Features, List, Value

Text = Literal["chosen", "rejected", "record"]
"""What a row may offer besides its prompt: the better answer, the worse one, the dataset's whole record."""

IDS = List(Value("int32"))


@dataclass(frozen=True)
class DataStage:
    """What one stage of training takes of the data; subclasses say it for each."""

    name: ClassVar[str]
    """In messages, in the names of caches, and in the manifests of saved states."""
    part: ClassVar[int]
    """Which part of --data_split it trains on, from 0."""
    texts: ClassVar[tuple[Text, ...]]
    """What it needs of a row besides the prompt."""
    every_answer: ClassVar[bool] = False
    """Whether a training row with several right answers is as many samples."""
    length_flag: ClassVar[str] = "--max_seq_len"
    """The flag that limits its rows."""
    features: ClassVar[Features]
    """Columns of its tokenised rows."""

    more_paths: tuple[str, ...] = ()
    """Datasets that this stage alone uses, whole."""
    needs_tests: bool = False
    """Whether rows without tests that can be run are left out."""

    @property
    def answers(self) -> tuple[Text, ...]:
        """The answers that it learns from; none where it has prompts alone."""
        return tuple(text for text in self.texts if text != "record")

    def row(self, prompt: list[int], answers: Sequence[list[int]], *, record: str) -> dict[str, Any]:
        """The tokenised row, in the columns of `features`.

        Args:
            prompt: its ids, which are at the beginning of every sequence.
            answers: the ids of each of `answers`, an end id last.
            record: JSON of the dataset's record, "{}" where the stage does not need it.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SFTStage(DataStage):
    """Supervised fine-tuning on prompts with their chosen answers."""

    name = "sft"
    part = 0
    texts = ("chosen",)
    every_answer = True
    features = Features({"input_ids": IDS, "prompt_length": Value("int32")})

    def row(self, prompt: list[int], answers: Sequence[list[int]], *, record: str) -> dict[str, Any]:
        """Prompt and answer as one sequence."""
        return {"input_ids": prompt + answers[0], "prompt_length": len(prompt)}


@dataclass(frozen=True)
class RewardStage(DataStage):
    """The reward model, on pairs of a chosen and a rejected answer."""

    name = "reward"
    part = 1
    texts = ("chosen", "rejected")
    features = Features({"chosen_ids": IDS, "rejected_ids": IDS})

    def row(self, prompt: list[int], answers: Sequence[list[int]], *, record: str) -> dict[str, Any]:
        """Two sequences that begin with the same prompt."""
        return {"chosen_ids": prompt + answers[0], "rejected_ids": prompt + answers[1]}


@dataclass(frozen=True)
class PPOStage(DataStage):
    """PPO, on prompts alone; the record says what a reward source may want to know."""

    name = "ppo"
    part = 2
    texts = ("record",)
    length_flag = "--max_prompt_seq_len"
    features = Features({"input_ids": IDS, "record": Value("large_string")})

    def row(self, prompt: list[int], answers: Sequence[list[int]], *, record: str) -> dict[str, Any]:
        """A prompt with its record."""
        return {"input_ids": prompt, "record": record}


SFT, REWARD, PPO = SFTStage(), RewardStage(), PPOStage()
