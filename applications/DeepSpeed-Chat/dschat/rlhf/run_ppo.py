"""Step 3 put together: the one place that names concrete regularizers and reward sources."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing

import torch

from dschat.config.steps import PPOConfig
from dschat.generation import EndTokens, Generator, HuggingFaceSettings, build_generator
from dschat.models.checked import CheckedModel
from dschat.preparation import Prepared, claimed, continuation, describe_rehearsal
from dschat.rlhf.constituency import ConstituencyParser, StanzaParser
from dschat.rlhf.plan import (
    REHEARSED_ANSWER_TOKENS,
    describe_plan,
    make_plan,
    memory_report,
    plain_text,
    prepare_ppo,
    rehearsal,
)
from dschat.rlhf.ppo_loop import PPOLoop
from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer
from dschat.rlhf.regularizers import build_regularizer
from dschat.rlhf.reward_sources import RewardSource, build_reward_source
from dschat.rlhf.rlhf_engine import DeepSpeedRLHFEngine
from dschat.runtime.logging import set_up_logging

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
    tokenizer = prepared.tokenizer
    plan = make_plan(config, len(prepared.data.train))
    logger.info("%s", describe_plan(config, plan, len(prepared.data.train)))
    models = {"actor_model_name_or_path": checkpoints.actor, "critic_model_name_or_path": checkpoints.critic}
    goes_on = continuation(config, prepared, models)
    text = plain_text(config, prepared)
    if config.runtime.dry_run:
        for line in memory_report(config, checkpoints):
            logger.info("estimated: %s", line)
        config = rehearsal(config)
        plan = make_plan(config, len(prepared.data.train))
    torch.manual_seed(config.runtime.seed)
    engine = DeepSpeedRLHFEngine(config, checkpoints, total_updates=plan.updates, device=prepared.device)
    regularizer = build_regularizer(
        config.regularizer,
        reference_embeddings=engine.reference_embeddings,
        gaps=engine.vocabulary.gaps,
        seed=config.runtime.seed,
    )
    logger.info("%s", regularizer.describe())
    logger.info("%s", config.macro_actions.describe())
    if config.effective_penalty_clip is not None:
        logger.info("the penalty times its coefficient is clipped to +-%g", config.effective_penalty_clip)
    trainer = DeepSpeedPPOTrainer(
        engine,
        config,
        regularizer,
        reward_source or build_reward_source(config.reward, reward_model=engine.reward),
        tokenizer,
        generator or _generator(config, engine, checkpoints.actor),
        device=prepared.device,
        parser=parser,
        text=text,
    )
    loop = PPOLoop(config, prepared, engine, trainer, plan, goes_on)
    with engine.memory.during("step"):
        loop.run()
    if config.runtime.dry_run:
        _report_rehearsal(engine, prepared)


def _generator(config: PPOConfig, engine: DeepSpeedRLHFEngine, actor: CheckedModel) -> Generator:
    """What continues prompts with the actor."""
    ends = EndTokens.of(actor, end_of_conversation_token=config.data.end_of_conversation_token)
    settings = HuggingFaceSettings(gather=config.models.enable_zero3_generation_gather)
    return build_generator(engine.actor, ends, settings)


def _report_rehearsal(engine: DeepSpeedRLHFEngine, prepared: Prepared) -> None:
    """Log what a dry run measured."""
    roles = {"actor": engine.actor, "reference": engine.reference, "critic": engine.critic}
    if engine.reward is not None:
        roles["reward model"] = engine.reward
    for role, model in roles.items():
        logger.info("measured: %s", engine.memory.describe(role, model))
    logger.info("%s", describe_rehearsal(engine.memory, prepared, f" with answers of {REHEARSED_ANSWER_TOKENS} tokens"))
