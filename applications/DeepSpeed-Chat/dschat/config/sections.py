"""Settings of the three steps, one dataclass per concern. A field is a command-line flag and is defined here once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers.hf_argparser import HfArg

from dschat.config.adapter import AdapterSettings

SchedulerName = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]


@dataclass(frozen=True)
class DataConfig:
    """Where the texts come from and how they are shared out among the three steps."""

    _argument_group_name: ClassVar[str] = "data"

    data_path: list[str] = HfArg(
        default_factory=lambda: ["Dahoas/rm-static"],
        help="Dataset names or local folders or files with a supported dataset's columns; several are mixed.",
    )
    data_format: str | None = HfArg(
        default=None, help="Dataset name whose columns a local --data_path has, where its name does not tell."
    )
    data_split: str = HfArg(
        default="2,4,4", help="Proportions of the rows for steps 1, 2 and 3 (2,4,4 is 20, 40 and 40 percent)."
    )
    split_by: Literal["row", "group"] = HfArg(
        default="row", help="row: the published permutation of rows. group: all rows of one post stay in one step."
    )
    data_output_path: str | None = HfArg(
        default=None, help="Folder of the tokenised caches; default: data_cache in --output_dir."
    )
    apps_prompt: Literal["full", "published"] = HfArg(
        default="full",
        help="Prompts of programming problems. full: with starter code, function name and how it is tested. published: "
        "the problem alone.",
    )
    skip_bad_rows: int = HfArg(
        default=0,
        help="Unreadable rows that a dataset's json or jsonl files may have; left out, shown and counted.",
    )
    end_of_conversation_token: str | None = HfArg(
        default=None, help="Token that ends an answer; default (or the text None): the tokenizer's EOS."
    )


@dataclass(frozen=True)
class SFTDataConfig:
    """What only step 1 may do with its texts."""

    _argument_group_name: ClassVar[str] = "data"

    sft_only_data_path: list[str] = HfArg(default_factory=list, help="Datasets used by step 1 alone, all rows.")
    loss_on_prompt: bool = HfArg(default=False, help="Also train on the prompt's tokens; padding never counts.")


@dataclass(frozen=True)
class SupervisedConfig:
    """The one model that step 1 or step 2 trains, and its batches."""

    _argument_group_name: ClassVar[str] = "model and optimization"

    model_name_or_path: str = HfArg(help="Step 1: a causal language model. Step 2: the folder that step 1 wrote.")
    per_device_train_batch_size: int = HfArg(default=16, help="Rows per device and forward pass.")
    per_device_eval_batch_size: int = HfArg(default=16, help="Rows per device and forward pass in evaluation.")
    max_seq_len: int = HfArg(default=512, help="Tokens of prompt and answer; longer prompts are cut at the front.")
    learning_rate: float = HfArg(default=5e-5, help="Peak learning rate.")
    weight_decay: float = HfArg(default=0.0, help="Decoupled weight decay of all but biases and norms.")
    gradient_checkpointing: bool = HfArg(default=False, help="Recompute activations in the backward pass.")
    dropout: float | None = HfArg(default=None, help="Overrides every dropout rate of the model's config.")
    zero_stage: int = HfArg(default=0, help="DeepSpeed ZeRO stage, 0 to 3.")
    eval_interval: int = HfArg(
        default=0, help="Optimizer steps between evaluations; step 2 also saves. 0: before, after, and each epoch."
    )
    eval_iters: int = HfArg(default=100, help="Batches per evaluation and rank; 0: all.")


@dataclass(frozen=True)
class AdaptationConfig:
    """What all LoRA adapters of a step have in common."""

    _argument_group_name: ClassVar[str] = "LoRA"

    only_optimize_lora: bool = HfArg(
        default=False, help="Freeze all but the adapter and a reward model's head; else all but the adapted matrices."
    )
    lora_alpha: float = HfArg(default=1.0, help="The adapter's product counts this over its rank (published: 1).")


@dataclass(frozen=True)
class LoraConfig:
    """The LoRA adapter of step 1 or 2."""

    _argument_group_name: ClassVar[str] = "LoRA"

    lora_dim: int = HfArg(default=0, help="Rank of the adapter; 0: none, all weights are trained.")
    lora_module_name: list[str] = HfArg(
        default_factory=list, help="Parts of the names of the linear layers to adapt; default: all of the blocks."
    )
    lora_learning_rate: float = HfArg(default=5e-4, help="Peak learning rate of the adapter.")
    quantize: Literal["none", "4bit"] = HfArg(
        default="none", help="4bit: frozen linear layers in 4 bits (QLoRA); needs a GPU and bitsandbytes."
    )

    def adapter(self, common: AdaptationConfig) -> AdapterSettings | None:
        """The adapter that these flags describe, None without one."""
        return _adapter(self.lora_dim, self.lora_module_name, self.lora_learning_rate, self.quantize, "", common)


def _adapter(
    rank: int, names: list[str], learning_rate: float, quantize: str, role: str, common: AdaptationConfig
) -> AdapterSettings | None:
    if rank == 0:
        return None
    return AdapterSettings(
        rank=rank,
        alpha=common.lora_alpha,
        module_names=tuple(names),
        learning_rate=learning_rate,
        alone=common.only_optimize_lora,
        quantized=quantize == "4bit",
        role=role,
    )


@dataclass(frozen=True)
class ScheduleConfig:
    """How long to train and along which learning-rate curve."""

    _argument_group_name: ClassVar[str] = "schedule"

    num_train_epochs: int = HfArg(default=1, help="Passes over this step's share of the data.")
    max_steps: int = HfArg(default=0, aliases=["--test_stop_step"], help="Stop after this many steps; 0: never.")
    gradient_accumulation_steps: int = HfArg(default=1, help="Micro-batches per optimizer step.")
    lr_scheduler_type: SchedulerName = HfArg(default="cosine", help="Learning-rate curve.")
    num_warmup_steps: int | None = HfArg(
        default=None, help="Optimizer steps of linear warm-up; wins over --warmup_ratio."
    )
    warmup_ratio: float = HfArg(default=0.0, help="Warm-up as a share of all optimizer steps.")

    def warmup_steps(self, total_steps: int) -> int:
        """Optimizer steps of linear warm-up in a run of `total_steps` optimizer steps."""
        if self.num_warmup_steps is not None:
            return self.num_warmup_steps
        return round(self.warmup_ratio * total_steps)


@dataclass(frozen=True)
class RuntimeConfig:
    """Devices, precision and safety."""

    _argument_group_name: ClassVar[str] = "runtime"

    dtype: Literal["fp16", "bf16", "fp32"] = HfArg(
        default="fp16", help="Weights and activations; losses are always float32. fp16 falls back to bf16."
    )
    offload: bool = HfArg(default=False, help="Keep optimizer states (ZeRO 1-3) and weights (ZeRO 3) in host memory.")
    seed: int = HfArg(default=1234, help="Seed of data order, splits, new weights and (plus the rank) sampling.")
    local_rank: int = HfArg(default=-1, help="Set by the launcher.")
    deepspeed_config: str | None = HfArg(
        default=None, help="JSON file whose entries override the DeepSpeed settings that the other flags imply."
    )
    dist_timeout: float = HfArg(
        default=1800.0, help="Seconds that a rank waits for the others before the run is given up."
    )
    trust_remote_code: bool = HfArg(default=False, help="Run Python code that a model folder brings along.")
    dry_run: bool = HfArg(
        default=False,
        help="Check everything, make and save one step in a temporary folder (step 3: answers of 4 tokens), print the "
        "batch sizes and the memory, and leave --output_dir as it was.",
    )


@dataclass(frozen=True)
class OutputConfig:
    """What a run leaves behind."""

    _argument_group_name: ClassVar[str] = "output"

    output_dir: str | None = HfArg(default=None, help="Folder of models, metrics.jsonl and caches (required).")
    overwrite_output_dir: bool = HfArg(default=False, help="Start anew in a folder that already holds a run.")
    enable_tensorboard: bool = HfArg(default=False, help="Also write the metrics for TensorBoard.")
    tensorboard_path: str | None = HfArg(
        default=None, help="Folder of the TensorBoard files; default: tensorboard in --output_dir."
    )


@dataclass(frozen=True)
class SavingConfig:
    """When a run saves what it needs to go on, and from where it goes on."""

    _argument_group_name: ClassVar[str] = "saving and resuming"

    save_steps: int = HfArg(
        default=100,
        help="Steps between saved states, in step 3 also between saved models; at the end one is always saved. 0: only "
        "there.",
    )
    save_total_limit: int = HfArg(default=2, help="States that are kept; older ones are deleted. 0: all.")
    save_only_model: bool = HfArg(default=False, help="Save models but no states; the run cannot be resumed.")
    resume: str = HfArg(
        default="never",
        help="auto: go on from the newest whole state in --output_dir, or start if there is none. A folder: from that "
        "state. never: refuse a folder that holds a run.",
    )
    resume_override: bool = HfArg(default=False, help="Go on although settings differ from those of the saved state.")
    on_full_disk: Literal["stop", "continue"] = HfArg(
        default="stop", help="What to do when a state does not fit; continue: train on and try again at the next save."
    )


@dataclass(frozen=True)
class GuardConfig:
    """What to do about numbers that are not finite."""

    _argument_group_name: ClassVar[str] = "guards"

    on_nan: Literal["stop", "skip"] = HfArg(
        default="stop", help="NaN or infinite losses, gradients, logits or rewards. skip: leave the step out."
    )
    max_skipped_steps: int = HfArg(default=5, help="Steps left out in a row after which the run is given up.")


@dataclass(frozen=True)
class ActorCriticConfig:
    """The models of step 3: actor and critic are trained, their frozen copies are reference and reward model."""

    _argument_group_name: ClassVar[str] = "models"

    actor_model_name_or_path: str = HfArg(help="The folder that step 1 wrote: actor and reference.")
    critic_model_name_or_path: str | None = HfArg(
        default=None,
        help="A step_<n> folder that step 2 wrote: critic and reward model. With rewards from unit tests the critic "
        "alone, and it may be left out: the critic then starts from the actor's folder with a new score head.",
    )
    actor_learning_rate: float = HfArg(default=9.65e-6, help="Peak learning rate of the actor.")
    critic_learning_rate: float = HfArg(default=5e-6, help="Peak learning rate of the critic.")
    actor_weight_decay: float = HfArg(default=0.0, help="Decoupled weight decay of the actor.")
    critic_weight_decay: float = HfArg(default=0.0, help="Decoupled weight decay of the critic.")
    actor_zero_stage: int = HfArg(default=0, help="ZeRO stage of the actor; at 3 the reference is at 3 too.")
    critic_zero_stage: int = HfArg(default=0, help="ZeRO stage of the critic; at 3 the reward model is at 3 too.")
    actor_gradient_checkpointing: bool = HfArg(default=False, help="Recompute the actor's activations.")
    critic_gradient_checkpointing: bool = HfArg(default=False, help="Recompute the critic's activations.")
    actor_dropout: float | None = HfArg(default=None, help="Overrides every dropout rate of the actor's config.")
    critic_dropout: float | None = HfArg(default=None, help="Overrides every dropout rate of the critic's config.")
    offload_reference_model: bool = HfArg(
        default=False, help="Keep the reference (ZeRO 3) and the actor's average in host memory."
    )
    enable_zero3_generation_gather: bool = HfArg(
        default=True, help="ZeRO 3: gather the actor once per rollout, not once per token; needs room for all of it."
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
class ActorCriticLoraConfig:
    """The LoRA adapters of step 3."""

    _argument_group_name: ClassVar[str] = "LoRA"

    actor_lora_dim: int = HfArg(default=0, help="Rank of the actor's adapter; 0: none.")
    critic_lora_dim: int = HfArg(default=0, help="Rank of the critic's adapter; 0: none.")
    actor_lora_module_name: list[str] = HfArg(
        default_factory=list,
        help="Parts of names of the actor's linear layers to adapt; default: all of the blocks.",
    )
    critic_lora_module_name: list[str] = HfArg(
        default_factory=list,
        help="Parts of names of the critic's linear layers to adapt; default: all of the blocks.",
    )
    actor_lora_learning_rate: float = HfArg(default=5e-4, help="Peak learning rate of the actor's adapter.")
    critic_lora_learning_rate: float = HfArg(default=5e-4, help="Peak learning rate of the critic's adapter.")
    actor_quantize: Literal["none", "4bit"] = HfArg(
        default="none", help="4bit: the actor's frozen linear layers in 4 bits (QLoRA); needs a GPU and bitsandbytes."
    )
    critic_quantize: Literal["none", "4bit"] = HfArg(default="none", help="The same for the critic.")

    def actor(self, common: AdaptationConfig) -> AdapterSettings | None:
        """The actor's adapter, None without one."""
        return _adapter(
            self.actor_lora_dim, self.actor_lora_module_name, self.actor_lora_learning_rate, self.actor_quantize,
            "actor_", common,
        )  # fmt: skip

    def critic(self, common: AdaptationConfig) -> AdapterSettings | None:
        """The critic's adapter, None without one."""
        return _adapter(
            self.critic_lora_dim, self.critic_lora_module_name, self.critic_lora_learning_rate, self.critic_quantize,
            "critic_", common,
        )  # fmt: skip


@dataclass(frozen=True)
class AveragingConfig:
    """A moving average of the actor, saved beside it."""

    _argument_group_name: ClassVar[str] = "models"

    enable_ema: bool = HfArg(default=False, help="Keep an exponential moving average of the actor; see --ema_decay.")
    ema_decay: float = HfArg(default=0.992, help="Weight of the past average at each optimizer step.")


@dataclass(frozen=True)
class RolloutConfig:
    """How answers are sampled."""

    _argument_group_name: ClassVar[str] = "rollout"

    per_device_generation_batch_size: int = HfArg(default=16, help="Prompts per device and rollout batch.")
    generation_batches: int = HfArg(default=1, help="Rollout batches gathered before training on them.")
    max_prompt_seq_len: int = HfArg(default=256, help="Tokens of a prompt; longer ones are cut at the front.")
    max_answer_seq_len: int = HfArg(default=256, help="Tokens of an answer.")
    temperature: float = HfArg(default=0.8, help="Sampling temperature; log-probabilities are those of temperature 1.")
    sampling_top_k: int = HfArg(default=50, help="Sample among this many most likely tokens; 0: all.")
    sampling_top_p: float = HfArg(default=1.0, help="Sample within this much probability mass.")


@dataclass(frozen=True)
class PPOUpdateConfig:
    """Rewards, advantages and the clipped losses."""

    _argument_group_name: ClassVar[str] = "PPO"

    per_device_training_batch_size: int = HfArg(default=16, help="Rows per device and PPO forward pass.")
    max_tokens_per_micro_batch: int | None = HfArg(
        default=None,
        help="Rows of an optimizer step are put together by length, as many as this holds with padding, instead of "
        "--per_device_training_batch_size at a time.",
    )
    ppo_epochs: int = HfArg(default=1, help="Passes over each group of rollouts.")
    kl_ctl: float = HfArg(default=0.05, aliases=["--penalty_coef"], help="Coefficient of the regularizer's penalty.")
    gamma: float = HfArg(default=1.0, help="Discount per token.")
    lam: float = HfArg(default=0.95, help="Lambda of generalized advantage estimation.")
    policy_clip: float = HfArg(default=0.2, help="Clip range of the policy's probability ratio.")
    dual_clip: float | None = HfArg(
        default=None, help="Bounds the loss of a bad token that became likelier to this times its advantage, e.g. 3."
    )
    value_clip: float = HfArg(default=0.2, help="Clip range of the change in value.")
    value_loss_coef: float = HfArg(default=1.0, help="Factor of the critic's loss.")
    reward_clip: float = HfArg(default=2.5, help="Sequence scores are clipped to plus or minus this.")
    entropy_coef: float = HfArg(default=0.0, help="Reward for the policy's entropy, per token; 0: none.")
    early_stop_kl: float | None = HfArg(
        default=None, help="Leave a step's answers when KL(sampling policy || policy) per token exceeds this."
    )


@dataclass(frozen=True)
class ShapingConfig:
    """What may happen to scores, penalties and advantages; everything is off by default, as published."""

    _argument_group_name: ClassVar[str] = "shaping"

    normalize_rewards: bool = HfArg(
        default=False, help="Scores in standard deviations from the mean of all earlier steps, before --reward_clip."
    )
    missing_eos_penalty: float = HfArg(
        default=0.0, help="Taken from the clipped score of an answer that did not end by itself."
    )
    penalty_clip: float | None = HfArg(
        default=None,
        help="Clips --kl_ctl times the penalty to plus or minus this; 0: off. Default: 2.5 for f-divergences but rkl, "
        "whose tails are exponential; else off.",
    )
    penalty_target: float | None = HfArg(
        default=None, help="Adapt --kl_ctl so that the mean penalty per token approaches this."
    )
    penalty_horizon: int = HfArg(
        default=10_000, help="--penalty_target: answers in which an error of 100 percent would double the coefficient."
    )
    whiten_advantages: bool = HfArg(
        default=False, help="Advantages with mean 0 and variance 1 over all tokens of a step, on all ranks together."
    )


@dataclass(frozen=True)
class MacroActionConfig:
    """Macro actions (MA-RLHF, arXiv 2410.02743): runs of tokens that are rewarded and valued as one decision."""

    _argument_group_name: ClassVar[str] = "macro actions"

    termination_condition: Literal["fixed", "randomized", "ppl", "parsing"] = HfArg(
        default="fixed",
        help="Where a segment ends. fixed: after --ngram tokens. randomized: after random lengths of 1 to 10. "
        "ppl: where the reference's perplexity rises. parsing: with a phrase (needs the extra dschat[parsing]).",
    )
    ngram: int = HfArg(
        default=1, help="Tokens per segment, 1 for plain PPO; with parsing, of answers that cannot be parsed."
    )
    repeat_times: int | None = HfArg(default=None, help="randomized: how often each length occurs in an answer.")
    parser_cutoff: int | None = HfArg(default=None, help="parsing: phrases of fewer tokens are one segment.")
    value_function: Literal["equal", "unit", "position"] = HfArg(
        default="equal",
        help="A segment's value. equal: mean of its tokens' values. position: the i-th weighs 1/i. unit: the last.",
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


@dataclass(frozen=True)
class UnsupervisedConfig:
    """PPO-ptx: the pretraining loss mixed into the actor's (Ouyang et al. 2022, arXiv 2203.02155, Eq. 2)."""

    _argument_group_name: ClassVar[str] = "unsupervised mix"

    unsupervised_dataset_name: str | None = HfArg(
        default=None, help="Plain text to mix in: a txt, json, jsonl or parquet file or folder, or a hub dataset."
    )
    unsupervised_dataset_config_name: str | None = HfArg(default=None, help="Configuration of the hub dataset.")
    unsup_coef: float = HfArg(default=27.8, help="Coefficient of the text's mean negative log-likelihood; 0: off.")
    preprocessing_num_workers: int = HfArg(default=1, help="Processes that tokenise the plain text.")

    @property
    def active(self) -> bool:
        """Whether text is mixed in."""
        return self.unsupervised_dataset_name is not None and self.unsup_coef > 0


@dataclass(frozen=True)
class MonitoringConfig:
    """When step 3 evaluates and shows answers."""

    _argument_group_name: ClassVar[str] = "monitoring"

    eval_steps: int = HfArg(default=0, help="PPO steps between evaluations on held-out prompts; 0: none.")
    eval_prompts: int = HfArg(default=64, help="Held-out prompts per evaluation, over all ranks.")
    print_answers: bool = HfArg(default=False, help="Show a table of sample answers with score and penalty.")
    print_answers_interval: int = HfArg(default=10, help="PPO steps between such tables.")


@dataclass(frozen=True)
class DivergenceConfig:
    """No regularizer, KL, or an f-divergence between the policy and the reference."""

    _argument_group_name: ClassVar[str] = "regularizer"

    f_div: Literal["none", "rkl", "fkl", "js", "alpha", "tv", "chi"] = HfArg(
        default="rkl", help="rkl: KL(policy || reference), the usual one. none: no penalty."
    )
    f_div_alpha: float = HfArg(default=0.5, help="Order of the alpha-divergence, between 0 and 1.")
    f_div_low_var: bool = HfArg(default=False, help="Variance-reduced estimator, for rkl and fkl.")
    kl_estimator: Literal["k1", "k2", "k3"] = HfArg(
        default="k1", help="rkl: log-ratio r (k1), r^2/2 (k2, biased), or r + exp(-r) - 1 (k3, as --f_div_low_var)."
    )

    @property
    def published_clip(self) -> float | None:
        """The clip of coefficient times penalty where --penalty_clip does not say."""
        return None if self.f_div in ("none", "rkl") else 2.5


@dataclass(frozen=True)
class WassersteinConfig:
    """Wasserstein Policy Regularization (arXiv 2602.01685)."""

    _argument_group_name: ClassVar[str] = "regularizer"

    cost_dim: int = HfArg(default=512, help="Nearest other tokens to which a token may move at its distance.")
    top_k: int = HfArg(default=128, help="Most likely tokens kept of each of the two distributions.")
    epsilon: float = HfArg(default=0.01, help="Entropic temperature; see --epsilon_unit.")
    epsilon_unit: Literal["cost", "nearest"] = HfArg(
        default="cost", help="cost: absolute, as published. nearest: multiples of the median nearest-token distance."
    )
    max_iter: int = HfArg(default=10, help="Sinkhorn rounds at most.")
    tol: float = HfArg(default=1e-6, help="A position stops when its change (truncated) or error (capped) is below.")
    cost_type: Literal["L2", "cos"] = HfArg(default="L2", help="Token distance: Euclidean, or one minus cosine.")
    block_size: int = HfArg(default=1024, help="Tokens per block while the geometry is built.")
    transport: Literal["truncated", "capped"] = HfArg(
        default="truncated", help="truncated: far tokens cannot exchange mass (published). capped: at --far_cost."
    )
    support: Literal["position", "batch"] = HfArg(
        default="position", help="Tokens kept per position (the paper) or per scored batch (the published code)."
    )
    far_cost: float | None = HfArg(
        default=None, help="Cost of far pairs under capped transport; default: median distance of random tokens."
    )
    debias: bool = HfArg(default=False, help="Sinkhorn divergence: zero where the policy is the reference (capped).")
    normalize: bool = HfArg(default=False, help="Published rescaling and centring of the potential (truncated).")
    gaussian_perturb: float = HfArg(
        default=0.0, help="Share of seeded Gaussian noise mixed into the embeddings before distances are taken."
    )

    @property
    def published_clip(self) -> float | None:
        """None: the published penalty is bounded by its floors alone."""
        return None


@dataclass(frozen=True)
class LearnedRewardConfig:
    """Scores from the reward model that step 2 trained, from Python functions, or from both."""

    _argument_group_name: ClassVar[str] = "reward"

    reward_function: list[str] = HfArg(
        default_factory=list,
        help="package.module:function of functions of (prompts, answers, records) that return one score per answer.",
    )
    reward_function_weight: list[float] = HfArg(
        default_factory=list, help="Weight of each --reward_function in the sum; default: 1 each."
    )
    reward_model_weight: float = HfArg(
        default=1.0, help="Weight of the reward model in the sum; 0: it is not loaded, functions alone score."
    )

    @property
    def function_weights(self) -> list[float]:
        """One weight for each function."""
        return self.reward_function_weight or [1.0] * len(self.reward_function)


@dataclass(frozen=True)
class UnitTestRewardConfig:
    """Scores from running the answers' programs on the problems' tests."""

    _argument_group_name: ClassVar[str] = "reward"

    code_sandbox: Literal["auto", "bwrap", "landlock", "none"] = HfArg(
        default="auto", help="Where programs run. auto: the first that passes a self-test of bwrap and landlock."
    )
    allow_unsandboxed: bool = HfArg(
        default=False, help="Run programs even where no sandbox works, on a machine that holds nothing of value."
    )
    test_time_limit: float = HfArg(
        default=4.0, help="CPU seconds of one test; all tests of a program together get eight times as much."
    )
    test_memory_limit_mb: int = HfArg(default=1024, help="MiB of address space of one test.")
    max_tests: int = HfArg(default=100, help="Most tests run per problem, spread evenly over them; 0: all.")
    grading_workers: int = HfArg(
        default=0, help="Programs graded at once per process; 0: its share of the cores but one."
    )
    apps_compare: Literal["strict", "reference"] = HfArg(
        default="strict",
        help="strict: outputs must agree but for white space. reference: with the published leniencies, which pay for "
        "tokens in any order.",
    )
    reward_shape: Literal["published", "all_or_nothing"] = HfArg(
        default="published",
        help="published: -1 does not compile, -0.6 error or time-out, else -0.3 + 1.3 times the share of tests that "
        "pass. all_or_nothing: 1 if all pass, else 0.",
    )
