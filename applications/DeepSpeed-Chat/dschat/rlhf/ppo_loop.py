"""What step 3 does at each step: rollouts, updates, evaluations, saves."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from dschat.config.steps import PPOConfig
from dschat.data.batches import PromptBatch
from dschat.data.collate import collate_prompts
from dschat.data.order import epoch_order, steps_per_epoch, wrapped_rows
from dschat.loop import TrainingLoop
from dschat.preparation import Prepared
from dschat.rlhf.experience import Experience
from dschat.rlhf.plan import Plan
from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer
from dschat.rlhf.rlhf_engine import DeepSpeedRLHFEngine
from dschat.rlhf.rollout_metrics import ScoredAnswers
from dschat.runtime.distributed import rank, reduce_sum, world_size
from dschat.runtime.guards import NonFinite
from dschat.runtime.health import RunHealth
from dschat.runtime.logging import show_table
from dschat.runtime.metrics import Sums
from dschat.runtime.model_folders import link

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


class PPOSteps:
    """The steps of PPO: rollouts, updates, evaluations and saves; see `dschat.loop.Stage`."""

    title = "PPO"
    shown_metrics = ("reward", "penalty", "log_ratio", "response_length", "actor_loss", "critic_loss")

    def __init__(
        self,
        config: PPOConfig,
        prepared: Prepared,
        engine: DeepSpeedRLHFEngine,
        trainer: DeepSpeedPPOTrainer,
        plan: Plan,
        loop: TrainingLoop,
    ) -> None:
        """
        Args:
            config: settings of step 3.
            prepared: prompts to train and to evaluate on, folder, device.
            engine: the four models.
            trainer: the two halves of a step.
            plan: the length of the run.
            loop: will run these steps; it is told what changes with training and has to be saved.
        """
        self._config = config
        self._prepared = prepared
        self._engine = engine
        self._trainer = trainer
        self._plan = plan
        self._broken = loop.broken
        self._health = RunHealth(penalty_coef=config.ppo.kl_ctl)
        self._pad = prepared.model.pad_token_id
        self._batch_rows: list[int] | None = None
        """Rows of the rollout batch in hand, None while the models are updated."""
        loop.state.register("health", self._health)
        loop.state.register("trainer", trainer)
        if engine.average is not None:
            loop.state.register("average", engine.average, per_rank=True)

    @property
    def total_steps(self) -> int:
        """PPO steps in all."""
        return self._plan.steps

    def evaluation_due(self, step: int) -> bool:
        """Whether to evaluate after a step: at every --eval_steps, before the first step and after the last."""
        interval = self._config.monitoring.eval_steps
        return bool(interval) and (step % interval == 0 or step == self.total_steps)

    def saving_due(self, step: int) -> bool:
        """Whether to save the models after a step: at every --save_steps, and after the last."""
        interval = self._config.saving.save_steps
        return step == self.total_steps or bool(interval and step % interval == 0)

    def save(self, step: int) -> None:
        """Write the models below `<output>/step-<n>` and link them from `<output>` itself."""
        folder = self._prepared.output / f"step-{step}"
        self._engine.save(folder)
        for role in self._engine.saved_roles:
            link(folder / role, folder.parent / role)

    def evaluate(self, step: int) -> dict[str, float]:
        """Means over answers to held-out prompts after `step` steps; training's random state is left as it was."""
        rows = self._prepared.data.evaluation
        count = min(self._config.monitoring.eval_prompts, len(rows))
        per_rank = self._config.rollout.per_device_generation_batch_size
        device = self._prepared.device
        sums = Sums()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self._config.runtime.seed + rank())
            for batch in range(math.ceil(count / (per_rank * world_size()))):
                numbers = wrapped_rows(
                    np.arange(count), step=batch, global_batch=per_rank * world_size(), rank=rank(), world=world_size()
                )
                prompts = collate_prompts([rows[number] for number in numbers], pad_token_id=self._pad)
                sums += self._trainer.generate_experience(prompts, step=step).sums
        metrics = sums.means(device)
        return {f"eval_{name}": metrics[name] for name in EVALUATED_METRICS if name in metrics}

    def update(self, step: int) -> dict[str, float]:
        """Answer the prompts of a step and learn from it; its metrics over all ranks."""
        started = time.perf_counter()
        rollouts = [self._trainer.generate_experience(prompts, step=step) for prompts in self._prompt_batches(step)]
        experiences = [rollout.experience for rollout in rollouts]
        sums = sum((rollout.sums for rollout in rollouts), Sums())
        said = sum(bool(answer) for rollout in rollouts for answer in rollout.answers.answers)
        if not self._left_out(experiences, said, step):
            training = self._trainer.train_rlhf(experiences, step=step)
            sums += training.sums
            if training.complete:
                self._broken.succeeded()
            else:
                self._broken.overflowed()
        metrics = sums.means(self._prepared.device)
        metrics["reward_std"] = math.sqrt(max(metrics.pop("reward_square") - metrics["reward"] ** 2, 0.0))
        metrics["actor_learning_rate"] = self._engine.actor.get_lr()[0]
        metrics["critic_learning_rate"] = self._engine.critic.get_lr()[0]
        metrics["epoch"] = step / steps_per_epoch(len(self._prepared.data.train), self._plan.batches.prompts)
        metrics["step_seconds"] = time.perf_counter() - started
        if self._config.monitoring.print_answers and step % self._config.monitoring.print_answers_interval == 0:
            _show_answers(step, rollouts[-1].answers)
        self._health.look(step, metrics)
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

    def rows_of(self, fault: NonFinite, step: int) -> list[int]:
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
        return wrapped_rows(order, step=within, global_batch=per_step, rank=rank(), world=world_size())


def _show_answers(step: int, answers: ScoredAnswers) -> None:
    rows: list[Sequence[str]] = [
        (prompt[-SHOWN_CHARACTERS:], answer[:SHOWN_CHARACTERS], f"{score:.3f}", f"{penalty:.4f}")
        for prompt, answer, score, penalty in zip(
            answers.prompts, answers.answers, answers.scores, answers.penalties, strict=True
        )
    ]
    show_table(f"answers at step {step}", ("prompt", "answer", "score", "penalty"), rows[:SHOWN_ANSWERS])
