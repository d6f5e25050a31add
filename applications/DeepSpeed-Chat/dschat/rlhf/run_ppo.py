"""Step 3 put together: the one place that names concrete regularizers and reward sources."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass

import torch

from dschat.config.steps import PPOConfig
from dschat.data.plain_text import TextBlocks
from dschat.generation import EndTokens, Generator, HuggingFaceSettings, build_generator
from dschat.loop import TrainingLoop
from dschat.preparation import Prepared, claimed, continuation, describe_rehearsal, tensorboard_folder
from dschat.rlhf.constituency import ConstituencyParser, StanzaParser
from dschat.rlhf.plan import (
    REHEARSED_ANSWER_TOKENS,
    Plan,
    describe_plan,
    make_plan,
    memory_report,
    plain_text,
    prepare_ppo,
    rehearsal,
)
from dschat.rlhf.ppo_loop import PPOSteps
from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer
from dschat.rlhf.regularizers import Regularizer, build_regularizer
from dschat.rlhf.reward_sources import RewardSource, build_reward_source
from dschat.rlhf.rlhf_engine import DeepSpeedRLHFEngine
from dschat.runtime.distributed import rank
from dschat.runtime.logging import set_up_logging
from dschat.runtime.random_state import seed_generators
from dschat.runtime.run import Continuation

logger = logging.getLogger(__name__)


def run_ppo(
    config: PPOConfig,
    *,
    reward_source: RewardSource | None = None,
    generator: Generator | None = None,
    parser: ConstituencyParser | None = None,
) -> None:
    """Train an actor with PPO, from checked settings to saved folders.

    Args:
        config: settings of step 3.
        reward_source: scores the answers; default: the one that the settings name.
        generator: continues prompts; default: the library's `generate` on the actor.
        parser: for macro actions by parsing; default: Stanza's.
    """
    set_up_logging()
    with ExitStack() as stack:
        stack.enter_context(claimed(config.output, dry_run=config.runtime.dry_run))
        if reward_source is None and not config.uses_reward_model:
            # before this process has an accelerator and gigabytes of weights
            reward_source = stack.enter_context(closing(build_reward_source(config.reward)))
        _train(config, reward_source, generator, parser)


def _train(
    config: PPOConfig,
    reward_source: RewardSource | None,
    generator: Generator | None,
    parser: ConstituencyParser | None,
) -> None:
    """Everything but the processes of the reward source, which is None where a reward model gives the scores."""
    prepared, checkpoints = prepare_ppo(config)
    if config.macro_actions.termination_condition == "parsing":
        parser = parser or StanzaParser(device=str(prepared.device))
    plan = make_plan(config, len(prepared.data.train))
    logger.info("%s", describe_plan(config, plan, len(prepared.data.train)))
    models = {"actor_model_name_or_path": checkpoints.actor, "critic_model_name_or_path": checkpoints.critic}
    goes_on = continuation(config, prepared, models)
    text = plain_text(config, prepared)
    if config.runtime.dry_run:
        for line in memory_report(config, checkpoints, plan):
            logger.info("estimated: %s", line)
        config = rehearsal(config)
        plan = make_plan(config, len(prepared.data.train))
    torch.manual_seed(config.runtime.seed)
    engine = DeepSpeedRLHFEngine(config, checkpoints, total_updates=plan.updates, device=prepared.device)
    parts = build_ppo(config, engine, reward_source=reward_source, generator=generator, parser=parser, text=text)
    for line in describe_rewards(config, parts.regularizer):
        logger.info("%s", line)
    with engine.memory.during("step"):
        train_ppo(config, prepared, parts, plan, goes_on)
    if config.runtime.dry_run:
        for line in engine.describe_memory():
            logger.info("measured: %s", line)
        what = f" with answers of {REHEARSED_ANSWER_TOKENS} tokens"
        logger.info("%s", describe_rehearsal(engine.memory, prepared, what))


@dataclass(frozen=True)
class PPOParts:
    """PPO put together, on models that are loaded."""

    engine: DeepSpeedRLHFEngine
    generator: Generator
    regularizer: Regularizer
    reward_source: RewardSource
    trainer: DeepSpeedPPOTrainer


def build_ppo(
    config: PPOConfig,
    engine: DeepSpeedRLHFEngine,
    *,
    reward_source: RewardSource | None = None,
    generator: Generator | None = None,
    parser: ConstituencyParser | None = None,
    text: TextBlocks | None = None,
) -> PPOParts:
    """Regularizer, reward source and trainer that the settings name, on the models of an engine.

    Several may be built on one engine, one after the other.

    Args:
        config: settings of step 3.
        engine: the models.
        reward_source: scores the answers; default: the one that the settings name.
        generator: continues prompts; default: the actor.
        parser: for macro actions by parsing.
        text: what the actor also learns to predict, where the settings mix text in.
    """
    generator = generator or _generator(config, engine)
    regularizer = build_regularizer(
        config.regularizer,
        reference_embeddings=engine.reference_embeddings,
        gaps=engine.vocabulary.gaps,
        seed=config.runtime.seed,
    )
    reward_source = reward_source or build_reward_source(config.reward, reward_model=engine.reward)
    trainer = DeepSpeedPPOTrainer(
        engine,
        config,
        regularizer,
        reward_source,
        engine.tokenizer,
        generator,
        device=engine.device,
        parser=parser,
        text=text,
    )
    return PPOParts(engine, generator, regularizer, reward_source, trainer)


def train_ppo(config: PPOConfig, prepared: Prepared, parts: PPOParts, plan: Plan, goes_on: Continuation) -> None:
    """Train to the end of the plan and leave the last models behind; all ranks call it together.

    Args:
        config: settings of step 3.
        prepared: prompts, folder, device.
        parts: what trains.
        plan: the length of the run.
        goes_on: where the run goes on, and where it saves.
    """
    # every rank samples answers of its own
    seed_generators(config.runtime.seed + rank())
    tensorboard = tensorboard_folder(config.output, prepared.output)
    loop = TrainingLoop(parts.engine.trained, config.guards, goes_on, tensorboard=tensorboard)
    loop.run(PPOSteps(config, prepared, parts.engine, parts.trainer, plan, loop))


def _generator(config: PPOConfig, engine: DeepSpeedRLHFEngine) -> Generator:
    """What continues prompts with the actor."""
    ends = EndTokens.of(engine.checkpoints.actor)
    settings = HuggingFaceSettings(gather=config.models.enable_zero3_generation_gather)
    return build_generator(engine.actor, ends, settings)


def describe_rewards(config: PPOConfig, regularizer: Regularizer) -> list[str]:
    """What the rewards of tokens are made of, one sentence each."""
    lines = [regularizer.describe(), config.macro_actions.describe()]
    if config.effective_penalty_clip is not None:
        lines.append(f"the penalty times its coefficient is clipped to +-{config.effective_penalty_clip:g}")
    return lines
