"""Settings of step 3: its models, how answers are sampled, what they are worth, and how actor and critic learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from dschat.config.flag import Section, flag
from dschat.config.regularizers import DivergenceConfig, RegularizerConfig
from dschat.config.runtime import ZeroStage
from dschat.errors import UserError


@dataclass(frozen=True)
class ActorCriticConfig(Section):
    """The models of step 3: actor and critic are trained, their frozen copies are reference and reward model."""

    group: ClassVar[str] = "models"

    actor_model_name_or_path: str = flag(help="The folder that step 1 wrote: actor and reference.")
    critic_model_name_or_path: str | None = flag(
        None,
        help="A step_<n> folder that step 2 wrote: critic and reward model. Where none scores (unit tests, or "
        "--reward_function alone) it may be left out: the critic then starts from the actor's folder with a new head.",
    )
    actor_learning_rate: float = flag(9.65e-6, above=0, help="Peak learning rate of the actor.")
    critic_learning_rate: float = flag(5e-6, above=0, help="Peak learning rate of the critic.")
    actor_weight_decay: float = flag(0.0, at_least=0, help="Decoupled weight decay of the actor.")
    critic_weight_decay: float = flag(0.0, at_least=0, help="Decoupled weight decay of the critic.")
    actor_zero_stage: ZeroStage = flag(
        0, help="DeepSpeed ZeRO stage of the actor, 0 to 3; at 3 the reference is at 3 too."
    )
    critic_zero_stage: ZeroStage = flag(
        0, help="DeepSpeed ZeRO stage of the critic, 0 to 3; at 3 the reward model is at 3 too."
    )
    actor_gradient_checkpointing: bool = flag(
        False, help="Compute the actor's activations anew in the backward pass: less memory, more time."
    )
    critic_gradient_checkpointing: bool = flag(False, help="The same for the critic.")
    actor_dropout: float | None = flag(
        None, at_least=0, below=1, help="Overrides every dropout rate of the actor's config."
    )
    critic_dropout: float | None = flag(
        None, at_least=0, below=1, help="Overrides every dropout rate of the critic's config."
    )
    offload_reference_model: bool = flag(
        False, help="Keep the reference (by ZeRO 3) and the actor's moving average in host memory."
    )
    enable_zero3_generation_gather: bool = flag(
        True,
        help="With ZeRO 3, gather the actor's weights once per rollout instead of once per token; faster, but all of "
        "them must fit on each device.",
    )

    @property
    def reference_zero_stage(self) -> int:
        """3 where the actor is partitioned or the reference lies in host memory, else 0."""
        return 3 if self.actor_zero_stage == 3 or self.offload_reference_model else 0

    @property
    def reward_zero_stage(self) -> int:
        """3 where the critic is partitioned, else 0."""
        return 3 if self.critic_zero_stage == 3 else 0


@dataclass(frozen=True)
class AveragingConfig(Section):
    """A moving average of the actor, saved beside it."""

    group: ClassVar[str] = "models"

    enable_ema: bool = flag(False, help="Keep an exponential moving average of the actor; see --ema_decay.")
    ema_decay: float = flag(
        0.992, at_least=0, below=1, needs="enable_ema", help="Weight of the past average at each optimizer step."
    )


@dataclass(frozen=True)
class RolloutConfig(Section):
    """How answers are sampled."""

    group: ClassVar[str] = "rollout"

    per_device_generation_batch_size: int = flag(16, at_least=1, help="Prompts per device and rollout batch.")
    generation_batches: int = flag(1, at_least=1, help="Rollout batches gathered before training on them.")
    max_prompt_seq_len: int = flag(256, at_least=1, help="Tokens of a prompt; longer ones are cut at the front.")
    max_answer_seq_len: int = flag(256, at_least=1, help="Tokens of an answer at most.")
    temperature: float = flag(
        0.8, above=0, help="Sampling temperature. Log-probabilities in losses and penalties are of temperature 1."
    )
    sampling_top_k: int = flag(50, at_least=0, help="Sample among this many most likely tokens; 0: all.")
    sampling_top_p: float = flag(
        1.0, above=0, at_most=1, help="Sample among the most likely tokens that together have this probability."
    )


@dataclass(frozen=True)
class PPOUpdateConfig(Section):
    """Rewards, advantages and the clipped losses."""

    group: ClassVar[str] = "PPO"

    per_device_training_batch_size: int = flag(16, at_least=1, help="Rows per device and PPO forward pass.")
    max_tokens_per_micro_batch: int | None = flag(
        None,
        at_least=1,
        help="Tokens of a PPO forward pass, padding counted: rows of similar length go together up to this many, "
        "instead of --per_device_training_batch_size at a time.",
    )
    ppo_epochs: int = flag(1, at_least=1, help="Passes over each group of rollouts.")
    kl_ctl: float = flag(0.05, at_least=0, aliases=("penalty_coef",), help="Coefficient of the regularizer's penalty.")
    gamma: float = flag(1.0, at_least=0, at_most=1, help="Discount per token.")
    lam: float = flag(0.95, at_least=0, at_most=1, help="Lambda of generalized advantage estimation.")
    policy_clip: float = flag(0.2, above=0, help="Clip range of the policy's probability ratio.")
    dual_clip: float | None = flag(
        None,
        above=1,
        advice="3 is usual",
        help="Bound on the loss of a token with a negative advantage that has become likelier: this times the "
        "advantage, such as 3.",
    )
    value_clip: float = flag(0.2, above=0, help="Clip range of the change in value.")
    value_loss_coef: float = flag(1.0, above=0, help="Factor of the critic's loss.")
    reward_clip: float = flag(2.5, above=0, help="Scores of answers are clipped to plus or minus this.")
    entropy_coef: float = flag(0.0, at_least=0, help="Reward for the policy's entropy, per token; 0: none.")
    early_stop_kl: float | None = flag(
        None,
        above=0,
        help="End the updates on a step's answers when KL(sampling policy || policy) per token exceeds this.",
    )


@dataclass(frozen=True)
class ShapingConfig(Section):
    """What may happen to scores, penalties and advantages; everything is off by default, as published."""

    group: ClassVar[str] = "shaping"

    normalize_rewards: bool = flag(
        False,
        help="Scores as standard deviations from the mean of all earlier steps; --reward_clip then clips those.",
    )
    missing_eos_penalty: float = flag(
        0.0, at_least=0, help="Subtracted from the clipped score of an answer without an end token."
    )
    penalty_clip: float | None = flag(
        None,
        at_least=0,
        help="Clip --kl_ctl times the penalty to plus or minus this; 0: off. Default: 2.5 for the f-divergences but "
        "rkl, whose tails are exponential; else off.",
    )
    penalty_target: float | None = flag(
        None, above=0, help="Mean penalty per token that --kl_ctl is steered towards, from step to step."
    )
    penalty_horizon: int = flag(
        10_000,
        at_least=1,
        needs="penalty_target",
        help="How slowly --kl_ctl is steered: each answer changes it by the penalty's relative error, 0.2 at most, "
        "divided by this.",
    )
    whiten_advantages: bool = flag(
        False, help="Advantages with mean 0 and variance 1 over all tokens of a step, on all ranks together."
    )


@dataclass(frozen=True)
class MacroActionConfig(Section):
    """Macro actions (MA-RLHF, arXiv 2410.02743): runs of tokens that are rewarded and valued as one decision."""

    group: ClassVar[str] = "macro actions"

    termination_condition: Literal["fixed", "randomized", "ppl", "parsing"] = flag(
        "fixed",
        help="Where a segment ends. fixed: after --ngram tokens. randomized: after random lengths of 1 to 10. "
        "ppl: where the reference's perplexity rises. parsing: with a phrase (needs the extra dschat[parsing]).",
    )
    ngram: int = flag(
        1,
        at_least=1,
        needs="termination_condition fixed|parsing",
        help="Tokens per segment, 1 for plain PPO; with parsing, of answers that cannot be parsed.",
    )
    repeat_times: int | None = flag(
        None,
        at_least=1,
        needs="termination_condition randomized",
        help="randomized: how often each length occurs in an answer.",
    )
    parser_cutoff: int | None = flag(
        None,
        at_least=1,
        needs="termination_condition parsing",
        help="parsing: phrases of fewer tokens are one segment.",
    )
    value_function: Literal["equal", "unit", "position"] = flag(
        "equal",
        help="A segment's value. equal: mean of its tokens' values. position: their mean where the i-th weighs 1/i. "
        "unit: its last token's value.",
    )

    @property
    def every_token(self) -> bool:
        """Whether each token is a segment of its own, which is plain PPO."""
        return self.termination_condition == "fixed" and self.ngram == 1

    def describe(self) -> str:
        """One sentence for the log."""
        if self.every_token:
            return "macro actions: none, every token is decided by itself; all --value_function are equal then"
        rule = {
            "fixed": f"of {self.ngram} tokens",
            "randomized": f"of random lengths ({self.repeat_times} times each)",
            "ppl": "that end where the reference's perplexity rises",
            "parsing": f"that are phrases of fewer than {self.parser_cutoff} tokens",
        }[self.termination_condition]
        return f"macro actions: segments {rule}, valued by --value_function {self.value_function}"

    def check(self) -> None:
        """Raise UserError for a condition without the number that it needs."""
        for name, owner, start in (("repeat_times", "randomized", 3), ("parser_cutoff", "parsing", 5)):
            if self.termination_condition == owner and getattr(self, name) is None:
                raise UserError(f"--termination_condition {owner} needs --{name}; --{name} {start} is a start")


@dataclass(frozen=True)
class UnsupervisedConfig(Section):
    """PPO-ptx: the pretraining loss mixed into the actor's (Ouyang et al. 2022, arXiv 2203.02155, Eq. 2)."""

    group: ClassVar[str] = "unsupervised mix"

    unsupervised_dataset_name: str | None = flag(
        None, help="Plain text to mix in: a txt, json, jsonl or parquet file or folder, or a hub dataset."
    )
    unsupervised_dataset_config_name: str | None = flag(
        None, needs="unsupervised_dataset_name", help="Configuration of the hub dataset."
    )
    unsup_coef: float = flag(
        27.8,
        at_least=0,
        needs="unsupervised_dataset_name",
        help="Coefficient of the text's mean negative log-likelihood; 0: off.",
    )
    preprocessing_num_workers: int = flag(
        1, at_least=1, needs="unsupervised_dataset_name", help="Processes that tokenise the plain text."
    )

    @property
    def active(self) -> bool:
        """Whether text is mixed in."""
        return self.unsupervised_dataset_name is not None and self.unsup_coef > 0


@dataclass(frozen=True)
class MonitoringConfig(Section):
    """When step 3 evaluates and shows answers."""

    group: ClassVar[str] = "monitoring"

    eval_steps: int = flag(
        0, at_least=0, may_change=True, help="PPO steps between evaluations on held-out prompts; 0: none."
    )
    eval_prompts: int = flag(
        64,
        at_least=1,
        needs="eval_steps",
        may_change=True,
        help="Held-out prompts per evaluation, over all ranks.",
    )
    print_answers: bool = flag(False, may_change=True, help="Show a table of sample answers with score and penalty.")
    print_answers_interval: int = flag(
        10, at_least=1, needs="print_answers", may_change=True, help="PPO steps between such tables."
    )


def check_micro_batches(rollout: RolloutConfig, ppo: PPOUpdateConfig, unsupervised: UnsupervisedConfig) -> None:
    """Raise UserError where rollouts do not divide into micro-batches, or text cannot be shared out among them."""
    rows = rollout.generation_batches * rollout.per_device_generation_batch_size
    if rows % ppo.per_device_training_batch_size:
        raise UserError(
            f"--per_device_training_batch_size {ppo.per_device_training_batch_size} does not divide the {rows} rows of "
            "--generation_batches times --per_device_generation_batch_size; choose a divisor"
        )
    if ppo.max_tokens_per_micro_batch is not None and unsupervised.active:
        raise UserError(
            "--max_tokens_per_micro_batch does not go with --unsupervised_dataset_name, whose text is counted in "
            "micro-batches; drop one of them"
        )


def check_shaping(shaping: ShapingConfig, ppo: PPOUpdateConfig, regularizer: RegularizerConfig) -> None:
    """Raise UserError for shaping of a penalty that is not there."""
    free = isinstance(regularizer, DivergenceConfig) and regularizer.f_div == "none"
    for name in ("penalty_clip", "penalty_target"):
        if getattr(shaping, name) is not None and free:
            raise UserError(f"--{name} has no effect with --f_div none, which has no penalty; drop it")
    if shaping.penalty_target is not None and ppo.kl_ctl == 0:
        raise UserError("--penalty_target needs a --kl_ctl above 0 to start from")
