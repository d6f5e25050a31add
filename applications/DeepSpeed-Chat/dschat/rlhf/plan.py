"""From the settings of step 3 to what a run needs: checked folders and data, the plan, what a dry run says."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from dschat.config.steps import BatchArithmetic, PPOConfig
from dschat.data.order import steps_per_epoch
from dschat.data.plain_text import TextBlocks, TextSource, build_blocks
from dschat.data.stages import PPOStage
from dschat.engines import check_deepspeed_file, estimated
from dschat.models.checked import CheckedModel, find_model
from dschat.models.lora import check_adapter
from dschat.models.reward_model import check_has_head, has_head
from dschat.models.tokenizer import check_same_tokenizer
from dschat.preparation import Prepared, cache_folder, check_named_model, join_ranks, one_step, prepare
from dschat.rlhf.reward_sources import check_reward_source
from dschat.rlhf.rlhf_engine import Checkpoints, ppo_roles
from dschat.runtime.distributed import main_process_first, world_size
from dschat.runtime.memory import estimate_average

logger = logging.getLogger(__name__)

REHEARSED_ANSWER_TOKENS = 4
"""Tokens of an answer in a dry run."""


@dataclass(frozen=True)
class Plan:
    """How long the run is."""

    batches: BatchArithmetic
    steps: int
    """PPO steps in all."""
    updates: int
    """Optimizer steps in all."""


def prepare_ppo(config: PPOConfig) -> tuple[Prepared, Checkpoints]:
    """Check everything that can be checked without weights."""
    check_reward_source(config.reward)
    actor = check_named_model(config, "actor_model_name_or_path", config.models.actor_model_name_or_path)
    check_adapter(actor.config, config.actor_adapter)
    critic = _critic(config, actor)
    for model in (critic, actor):
        model.check_rows(
            config.rollout.max_prompt_seq_len + config.rollout.max_answer_seq_len,
            "--max_prompt_seq_len and --max_answer_seq_len",
        )
    check_adapter(critic.config, config.critic_adapter)
    scored_by_model = config.uses_reward_model
    checkpoints = Checkpoints(actor, critic, fresh_critic_head=not scored_by_model)
    device = join_ranks(config.runtime)
    check_deepspeed_file(config.runtime, lambda: ppo_roles(config, checkpoints, total_updates=1).all())
    stage = PPOStage(needs_tests=config.reward.needs_tests)
    prepared = prepare(config, actor, device, stage, max_length=config.rollout.max_prompt_seq_len)
    if not scored_by_model:
        head = "its score head" if has_head(critic) else "a new score head"
        logger.info("no reward model gives scores; the critic starts from %s with %s", critic.path, head)
    return prepared, checkpoints


def _critic(config: PPOConfig, actor: CheckedModel) -> CheckedModel:
    """The critic's checkpoint, which reads the actor's tokens: what the settings name, else the actor's own."""
    named = config.models.critic_model_name_or_path
    if named is None:
        return actor
    flag = "critic_model_name_or_path"
    is_actor = find_model(flag, named) == actor.path
    critic = replace(actor, flag=flag) if is_actor else check_named_model(config, flag, named)
    if config.uses_reward_model:
        check_has_head(critic)
    check_same_tokenizer(actor.tokenizer, critic.tokenizer)
    return replace(critic, tokenizer=actor.tokenizer)


def plain_text(config: PPOConfig, prepared: Prepared) -> TextBlocks | None:
    """The text to mix in, None where there is none or its coefficient is 0."""
    settings = config.unsupervised
    if not settings.active:
        return None
    source = TextSource(
        name=str(settings.unsupervised_dataset_name),
        config_name=settings.unsupervised_dataset_config_name,
        num_workers=settings.preprocessing_num_workers,
        cache_dir=cache_folder(config.data, prepared.output),
    )
    length = config.rollout.max_prompt_seq_len + config.rollout.max_answer_seq_len
    with main_process_first():
        return build_blocks(source, tokenizer=prepared.tokenizer, block_length=length, seed=config.runtime.seed)


def make_plan(config: PPOConfig, prompts: int) -> Plan:
    """The length of a run over so many prompts; all ranks agree on it."""
    batches = config.batches(world_size())
    steps = config.schedule.num_train_epochs * steps_per_epoch(prompts, batches.prompts)
    if config.schedule.max_steps:
        steps = min(steps, config.schedule.max_steps)
    return Plan(batches, steps, steps * batches.updates)


def rehearsal(config: PPOConfig) -> PPOConfig:
    """The settings of a dry run."""
    tokens = min(REHEARSED_ANSWER_TOKENS, config.rollout.max_answer_seq_len)
    return replace(
        one_step(config),
        rollout=replace(config.rollout, max_answer_seq_len=tokens),
        monitoring=replace(config.monitoring, eval_steps=0),
    )


def describe_plan(config: PPOConfig, plan: Plan, prompts: int) -> str:
    """The batch arithmetic in one sentence."""
    batches = plan.batches
    return (
        f"{prompts:,} prompts; a PPO step samples {batches.prompts} answers on {world_size()} device(s) "
        f"({batches.rollout_batches} rollout batches of {config.rollout.per_device_generation_batch_size} each) and "
        f"makes {batches.updates} optimizer step(s); {plan.steps:,} PPO steps and {plan.updates:,} optimizer steps in "
        f"all. Answers are sampled at temperature {config.rollout.temperature}, top-k "
        f"{config.rollout.sampling_top_k or 'off'}, top-p {config.rollout.sampling_top_p}; log-probabilities and "
        "penalties are those of temperature 1 over all tokens."
    )


def memory_report(config: PPOConfig, checkpoints: Checkpoints, plan: Plan) -> list[str]:
    """One line per model: what it keeps on each device."""
    lines = [estimated(role) for role in ppo_roles(config, checkpoints, total_updates=plan.updates).all()]
    if config.averaging.enable_ema:
        average = estimate_average(
            checkpoints.actor.config,
            config.actor_adapter,
            in_host_memory=config.models.offload_reference_model,
            world_size=world_size(),
        )
        lines.append(str(average))
    return lines
