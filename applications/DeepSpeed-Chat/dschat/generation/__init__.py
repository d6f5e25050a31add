"""One way to continue a prompt, for training and for every program that asks a model; engines by type of settings."""

from __future__ import annotations

from transformers import PreTrainedModel

from dschat.generation.base import Answers, EndTokens, Generator, RowSeed, Sampling
from dschat.generation.hugging_face import HuggingFaceGenerator, HuggingFaceSettings
from dschat.runtime.training_engine import TrainingEngine

__all__ = ["Answers", "EndTokens", "Generator", "HuggingFaceSettings", "RowSeed", "Sampling", "build_generator"]


def build_generator(
    policy: TrainingEngine | PreTrainedModel, ends: EndTokens, settings: HuggingFaceSettings
) -> Generator:
    """The generator that the settings describe.

    Args:
        policy: the DeepSpeed engine around a causal language model, or the model itself.
        ends: end and padding tokens, and the ids that can be sampled.
        settings: their type chooses the engine.
    """
    match settings:
        case HuggingFaceSettings(gather=gather):
            return HuggingFaceGenerator(policy, ends, gather=gather)
