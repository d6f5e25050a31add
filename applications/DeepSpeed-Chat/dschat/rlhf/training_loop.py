"""Step 3 put together: the one place that names concrete regularizers and reward sources."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from dschat.config.steps import BatchArithmetic, PPOConfig
from dschat.data.batches import PromptBatch
from dschat.data.phases import collate_prompts, epoch_order
from dschat.data.plain_text import TextBlocks, TextSource, build_blocks
from dschat.models.causal_lm import check_context
from dschat.models.lora import check_adapter
from dschat.models.reward_model import check_has_head, has_head
from dschat.models.tokenizer import (
    check_model_path,
    check_same_tokenizer,
    end_of_conversation_id,
    load_config,
    load_tokenizer,
)
from dschat.preparation import (
    Prepared,
    cache_folder,
    claimed,
    continuation,
    describe_rehearsal,
    one_step,
    prepare,
    steps_per_epoch,
    tensorboard_folder,
)
from dschat.rlhf.constituency import ConstituencyParser, StanzaParser
from dschat.rlhf.experience import Experience
from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer, SampleAnswers
from dschat.rlhf.regularizers import build_regularizer
from dschat.rlhf.reward_sources import RewardSource, build_reward_source, check_reward_source
from dschat.rlhf.rlhf_engine import DeepSpeedRLHFEngine, ModelPaths
from dschat.rlhf.rollout import AnswerTokens
from dschat.rlhf.rollout_metrics import ScoredAnswers
from dschat.runtime.checkpoint import link
from dschat.runtime.deepspeed_config import Placement, training_stage, usable_dtype
from dschat.runtime.distributed import main_process_first, rank, reduce_sum, world_size
from dschat.runtime.guards import BrokenSteps, NonFinite
from dschat.runtime.health import RunHealth
from dschat.runtime.logging import set_up_logging, show_table, step_progress
from dschat.runtime.memory import count_parameters, estimate, estimate_adapted, estimate_average
from dschat.runtime.metrics import WeightedMeans
from dschat.runtime.random_state import seed_generators
from dschat.runtime.run import Continuation, ResumableRun
from dschat.runtime.state import TrainingState

logger = logging.getLogger(__name__)

SHOWN_METRICS = ("reward", "penalty", "log_ratio", "response_length", "actor_loss", "critic_loss")
EVALUATED_METRICS = (
    *("reward", "penalty", "log_ratio", "response_length", "ended_share"),
    *("test_pass_rate", "strict_pass_rate"),
)
SFT_IS_SILENT = (
    "the SFT model answers nothing; see what it writes (chat.py --path ...), train step 1 longer or on longer answers"
)
POLICY_IS_SILENT = (
    "the policy has unlearned to answer; go back with a lower --actor_learning_rate or a higher --kl_ctl, and see what "
    "the reward pays for"
)
SHOWN_ANSWERS = 4
SHOWN_CHARACTERS = 300
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


def run_ppo(
    config: PPOConfig,
    *,
    reward_source: RewardSource | None = None,
    sample: SampleAnswers | None = None,
    parser: ConstituencyParser | None = None,
) -> None:
    """Train an actor with PPO, from checked settings to saved folders.

    Args:
        config: settings of step 3.
        reward_source: scores the answers; default: the one that the settings name.
        sample: continues prompts; default: the actor.
        parser: for macro actions by parsing; default: Stanza's.
    """
    set_up_logging()
    with ExitStack() as stack:
        stack.enter_context(claimed(config.output, dry_run=config.runtime.dry_run))
        if reward_source is None and not config.uses_reward_model:
            # before this process has an accelerator and gigabytes of weights
            reward_source = stack.enter_context(closing(build_reward_source(config.reward)))
        _train(config, reward_source, sample, parser)


def _train(
    config: PPOConfig,
    reward_source: RewardSource | None,
    sample: SampleAnswers | None,
    parser: ConstituencyParser | None,
) -> None:
    """Everything but the processes of the reward source, which is None where a reward model gives the scores."""
    prepared, paths = _prepare(config)
    if config.macro_actions.termination_condition == "parsing":
        parser = parser or StanzaParser(device=str(prepared.device))
    tokenizer = prepared.tokenizer
    plan = _plan(config, len(prepared.data.train))
    logger.info("%s", describe_plan(config, plan, len(prepared.data.train)))
    models = {"actor_model_name_or_path": paths.actor, "critic_model_name_or_path": paths.critic}
    goes_on = continuation(config, prepared, models)
    text = _plain_text(config, prepared)
    if config.runtime.dry_run:
        for line in memory_report(config, paths):
            logger.info("estimated: %s", line)
        config = _rehearsal(config)
        plan = _plan(config, len(prepared.data.train))
    torch.manual_seed(config.runtime.seed)
    engine = DeepSpeedRLHFEngine(config, paths, tokenizer, total_updates=plan.updates, device=prepared.device)
    regularizer = build_regularizer(
        config.regularizer,
        reference_embeddings=engine.reference_embeddings,
        seed=config.runtime.seed,
    )
    logger.info("%s", regularizer.describe())
    logger.info("%s", config.macro_actions.describe())
    if config.penalty_clip is not None:
        logger.info("the penalty times its coefficient is clipped to +-%g", config.penalty_clip)
    trainer = DeepSpeedPPOTrainer(
        engine,
        config,
        regularizer,
        reward_source or build_reward_source(config.reward, reward_model=engine.reward),
        tokenizer,
        _answer_tokens(tokenizer, config.data.end_of_conversation_token),
        device=prepared.device,
        sample=sample,
        parser=parser,
        text=text,
    )
    loop = PPOLoop(config, prepared, engine, trainer, plan, goes_on)
    with engine.memory.during("step"):
        loop.run()
    if config.runtime.dry_run:
        _report_rehearsal(engine, prepared)


class PPOLoop:
    """Steps, evaluations and saves, in order; all ranks run it together."""

    def __init__(
        self,
        config: PPOConfig,
        prepared: Prepared,
        engine: DeepSpeedRLHFEngine,
        trainer: DeepSpeedPPOTrainer,
        plan: Plan,
        goes_on: Continuation,
    ) -> None:
        engines = {"actor": engine.actor, "critic": engine.critic}
        self._broken = BrokenSteps(config.guards, engines, goes_on.store.last_good)
        self._health = RunHealth(penalty_coef=config.ppo.kl_ctl)
        self.state = TrainingState(engines, device=prepared.device)
        """What is saved; parts that change with training are registered here."""
        self.state.register("broken_steps", self._broken)
        self.state.register("health", self._health)
        self.state.register("trainer", trainer)
        if engine.average is not None:
            self.state.register("average", engine.average, per_rank=True)
        self._config = config
        self._prepared = prepared
        self._engine = engine
        self._trainer = trainer
        self._plan = plan
        self._run = ResumableRun(goes_on, self.state)
        self._pad = int(prepared.tokenizer.pad_token_id)
        self._batch_rows: list[int] | None = None
        """Rows of the rollout batch in hand, None while the models are updated."""

    def run(self) -> None:
        """Train to the end of the plan and leave the last models behind."""
        # every rank samples answers of its own
        seed_generators(self._config.runtime.seed + rank())
        monitoring = self._config.monitoring
        output = self._prepared.output
        interval = self._config.saving.save_steps
        tensorboard = tensorboard_folder(self._config.output, output)
        with (
            self._run as run,
            run.metrics_log(tensorboard) as log,
            step_progress(self._plan.steps, "PPO") as progress,
        ):
            if monitoring.eval_steps and run.done == 0:
                log.write(0, self.evaluate(step=0))
            for step in run.steps(self._plan.steps):
                metrics = self._guarded_step(step)
                last = step == self._plan.steps
                if monitoring.eval_steps and (step % monitoring.eval_steps == 0 or last):
                    metrics |= self.evaluate(step=step)
                metrics["run_seconds"] = run.seconds
                log.write(step, metrics)
                progress.advance(step, metrics, SHOWN_METRICS)
                if last or (interval and step % interval == 0):
                    self._save(output / f"step-{step}")
                run.step_done(step, last=last)

    def evaluate(self, *, step: int) -> dict[str, float]:
        """Means over answers to held-out prompts after `step` steps; training's random state is left as it was."""
        rows = self._prepared.data.evaluation
        count = min(self._config.monitoring.eval_prompts, len(rows))
        per_rank = self._config.rollout.per_device_generation_batch_size
        device = self._prepared.device
        means = WeightedMeans(device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self._config.runtime.seed + rank())
            for batch in range(math.ceil(count / (per_rank * world_size()))):
                start = (batch * world_size() + rank()) * per_rank
                # the last batch wraps around: every rank runs equally many rows
                items = [rows[(start + i) % count] for i in range(per_rank)]
                prompts = collate_prompts(items, pad_token_id=self._pad)
                self._trainer.generate_experience(prompts, means, step=step)
        metrics = means.reduce()
        return {f"eval_{name}": metrics[name] for name in EVALUATED_METRICS if name in metrics}

    def _guarded_step(self, step: int) -> dict[str, float]:
        """The step's metrics, or those of a step that was left out."""
        started = time.perf_counter()
        try:
            metrics = self._step(step)
        except NonFinite as fault:
            self._broken.handle(fault, self._rows_of(fault, step))
            metrics = {"step_seconds": time.perf_counter() - started}
        else:
            self._health.look(step, metrics)
        return metrics | {"skipped_steps": self._broken.skipped}

    def _step(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        means = WeightedMeans(self._prepared.device)
        experiences = []
        answers: ScoredAnswers | None = None
        said = 0
        for prompts in self._prompt_batches(step):
            experience, answers = self._trainer.generate_experience(prompts, means, step=step)
            experiences.append(experience)
            said += sum(map(bool, answers.answers))
        if not self._left_out(experiences, said, step):
            if self._trainer.train_rlhf(experiences, means, step=step):
                self._broken.succeeded()
            else:
                self._broken.overflowed()
        metrics = means.reduce()
        metrics["reward_std"] = math.sqrt(max(metrics.pop("reward_square") - metrics["reward"] ** 2, 0.0))
        metrics["actor_learning_rate"] = self._engine.actor.get_lr()[0]
        metrics["critic_learning_rate"] = self._engine.critic.get_lr()[0]
        metrics["epoch"] = step / steps_per_epoch(len(self._prepared.data.train), self._plan.batches.prompts)
        metrics["step_seconds"] = time.perf_counter() - started
        if self._config.monitoring.print_answers and step % self._config.monitoring.print_answers_interval == 0:
            _show_answers(step, answers)
        return metrics

    def _left_out(self, experiences: Sequence[Experience], said: int, step: int) -> bool:
        """Whether no rank has an answer to learn from, so that the step changes no weight.

        Args:
            experiences: of this rank's answers.
            said: how many of them hold any text.
            step: its number.
        """
        usable = sum(int(experience.response_mask.any(dim=-1).sum()) for experience in experiences)
        counts = reduce_sum(torch.tensor([usable, said], device=self._prepared.device)).tolist()
        if counts[0]:
            return False
        answers = self._plan.batches.prompts
        if counts[1]:
            report, advice = f"none of the {answers} answers of step {step} got a score", "the warnings above say why"
        else:
            report = f"all {answers} answers of step {step} are empty: each ends before it says anything"
            silent_from_the_start = self._broken.in_a_row == step - 1
            advice = SFT_IS_SILENT if silent_from_the_start else POLICY_IS_SILENT
        self._broken.leave_out(report, advice=advice)
        return True

    def _prompt_batches(self, step: int) -> Iterator[PromptBatch]:
        """This rank's rollout batches of one step."""
        rows = self._prepared.data.train
        numbers = self._rows(step)
        mine = [rows[number] for number in numbers]
        size = self._config.rollout.per_device_generation_batch_size
        for first in range(0, len(mine), size):
            self._batch_rows = numbers[first : first + size]
            yield collate_prompts(mine[first : first + size], pad_token_id=self._pad)
        self._batch_rows = None

    def _rows_of(self, fault: NonFinite, step: int) -> list[int]:
        """Numbers of this rank's training rows that a fault belongs to, none if it is another rank's.

        In the updates rows are mixed; then it is all of the step.
        """
        if fault.positions == []:
            return []
        if fault.positions is None or self._batch_rows is None:
            return self._rows(step)
        return [self._batch_rows[position] for position in fault.positions]

    def _rows(self, step: int) -> list[int]:
        """Numbers of this rank's training rows of one step.

        A step's prompts are one slice of the epoch's order whatever the number of ranks; the last step of an epoch
        wraps around to its beginning.
        """
        count = len(self._prepared.data.train)
        per_step = self._plan.batches.prompts
        epoch, within = divmod(step - 1, steps_per_epoch(count, per_step))
        order = epoch_order(count, seed=self._config.runtime.seed, epoch=epoch)
        per_rank = per_step // world_size()
        start = within * per_step + rank() * per_rank
        return [int(order[(start + i) % count]) for i in range(per_rank)]

    def _save(self, folder: Path) -> None:
        self._engine.save(folder)
        for role in self._engine.saved_roles:
            link(folder / role, folder.parent / role)


def _prepare(config: PPOConfig) -> tuple[Prepared, ModelPaths]:
    """Check everything that can be checked without weights."""
    check_reward_source(config.reward)
    trust = config.runtime.trust_remote_code
    lengths = config.rollout.max_prompt_seq_len + config.rollout.max_answer_seq_len
    flags = "--max_prompt_seq_len and --max_answer_seq_len"
    actor = check_model_path("actor_model_name_or_path", config.models.actor_model_name_or_path)
    check_adapter(load_config("actor_model_name_or_path", actor, trust_remote_code=trust), config.actor_adapter)
    critic = _critic_path(config, actor)
    critic_config = load_config("critic_model_name_or_path", critic, trust_remote_code=trust)
    check_context(critic_config, lengths, flags)
    check_adapter(critic_config, config.critic_adapter)
    token = config.data.end_of_conversation_token
    check_same_tokenizer(
        *(
            load_tokenizer(flag, path, end_of_conversation_token=token, trust_remote_code=trust)
            for flag, path in (("actor_model_name_or_path", actor), ("critic_model_name_or_path", critic))
        )
    )
    prepared = prepare(
        phase="ppo",
        model_flag="actor_model_name_or_path",
        model_path=config.models.actor_model_name_or_path,
        max_length=config.rollout.max_prompt_seq_len,
        row_length=lengths,
        length_flags=flags,
        data=config.data,
        runtime=config.runtime,
        output=config.output,
        resume=config.saving.resume,
        needs_tests=not config.has_reward_checkpoint,
    )
    if config.has_reward_checkpoint:
        return prepared, ModelPaths(actor=prepared.model_path, critic=critic)
    head = "its score head" if has_head("critic_model_name_or_path", critic) else "a new score head"
    logger.info("scores come from unit tests, without a reward model; the critic starts from %s with %s", critic, head)
    return prepared, ModelPaths(actor=prepared.model_path, critic=critic, fresh_critic_head=True)


def _critic_path(config: PPOConfig, actor: str) -> str:
    """The critic's checkpoint: what the settings name, else the actor's."""
    named = config.models.critic_model_name_or_path
    if named is None:
        return actor
    critic = check_model_path("critic_model_name_or_path", named)
    if config.has_reward_checkpoint:
        check_has_head("critic_model_name_or_path", critic)
    return critic


def _plain_text(config: PPOConfig, prepared: Prepared) -> TextBlocks | None:
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


def _plan(config: PPOConfig, prompts: int) -> Plan:
    batches = config.batches(world_size())
    steps = config.schedule.num_train_epochs * steps_per_epoch(prompts, batches.prompts)
    if config.schedule.max_steps:
        steps = min(steps, config.schedule.max_steps)
    return Plan(batches, steps, steps * batches.updates)


def _rehearsal(config: PPOConfig) -> PPOConfig:
    """The settings of a dry run."""
    tokens = min(REHEARSED_ANSWER_TOKENS, config.rollout.max_answer_seq_len)
    return replace(
        one_step(config),
        rollout=replace(config.rollout, max_answer_seq_len=tokens),
        monitoring=replace(config.monitoring, eval_steps=0),
    )


def _report_rehearsal(engine: DeepSpeedRLHFEngine, prepared: Prepared) -> None:
    """Log what a dry run measured."""
    roles = {"actor": engine.actor, "reference": engine.reference, "critic": engine.critic}
    if engine.reward is not None:
        roles["reward model"] = engine.reward
    for role, model in roles.items():
        logger.info("measured: %s", engine.memory.describe(role, model))
    logger.info("%s", describe_rehearsal(engine.memory, prepared, f" with answers of {REHEARSED_ANSWER_TOKENS} tokens"))


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


def memory_report(config: PPOConfig, paths: ModelPaths) -> list[str]:
    """One line per model: what it keeps on each device."""
    trust = config.runtime.trust_remote_code
    dtype = usable_dtype(config.runtime)
    offload, models = config.runtime.offload, config.models
    trained = [training_stage(stage, dtype) for stage in (models.actor_zero_stage, models.critic_zero_stage)]
    reference = Placement(models.reference_zero_stage, dtype, models.offload_reference_model)
    adapters = (config.actor_adapter, config.critic_adapter)
    roles = [
        ("actor", paths.actor, Placement(trained[0], dtype, offload), True, adapters[0]),
        ("reference", paths.actor, reference, False, adapters[0]),
        ("critic", paths.critic, Placement(trained[1], dtype, offload), True, adapters[1]),
    ]
    if config.uses_reward_model:
        reward = Placement(models.reward_zero_stage, dtype, offload)
        roles.append(("reward model", paths.critic, reward, False, adapters[1]))
    lines = []
    for role, path, placement, is_trained, adapter in roles:
        shape = load_config(role, path, trust_remote_code=trust)
        if is_trained:
            lines.append(str(estimate_adapted(role, shape, placement, adapter, world_size=world_size())))
        elif adapter is not None and adapter.alone:
            lines.append(f"{role}: no memory of its own, it is the trained model without its adapter")
        else:
            size = count_parameters(shape)
            lines.append(str(estimate(role, size, placement, trained=False, world_size=world_size())))
    if config.averaging.enable_ema:
        shape = load_config("actor", paths.actor, trust_remote_code=trust)
        in_host_memory = models.offload_reference_model
        average = estimate_average(shape, adapters[0], in_host_memory=in_host_memory, world_size=world_size())
        lines.append(str(average))
    return lines


def _answer_tokens(tokenizer: PreTrainedTokenizerBase, token: str | None) -> AnswerTokens:
    stop = {int(tokenizer.eos_token_id), end_of_conversation_id(tokenizer, token)}
    return AnswerTokens(stop=tuple(sorted(stop)), pad=int(tokenizer.pad_token_id), vocab_size=len(tokenizer))


def _show_answers(step: int, answers: ScoredAnswers | None) -> None:
    if answers is None:
        return
    rows: list[Sequence[str]] = [
        (prompt[-SHOWN_CHARACTERS:], answer[:SHOWN_CHARACTERS], f"{score:.3f}", f"{penalty:.4f}")
        for prompt, answer, score, penalty in zip(
            answers.prompts, answers.answers, answers.scores, answers.penalties, strict=True
        )
    ]
    show_table(f"answers at step {step}", ("prompt", "answer", "score", "penalty"), rows[:SHOWN_ANSWERS])
