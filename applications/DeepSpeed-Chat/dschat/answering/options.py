"""The command line of inference: the published flags and what was missing among them.

What all programs share is here, and the command line of `inference_with_rewards.py`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dschat.answering.dataset_names import HUB_NAMES, folder_name
from dschat.config.ppo import RolloutConfig
from dschat.config.runtime import RuntimeConfig
from dschat.errors import UserError

DtypeName = Literal["auto", "fp32", "bf16", "fp16"]
Group = argparse._ArgumentGroup


@dataclass(frozen=True)
class GenerationOptions:
    """Which prompts to answer, with which model, and how."""

    proj_path: Path
    """Folder that holds `results`."""
    dataset: str
    """Short name, or any name or path that `--data_path` of training takes."""
    data_path: str | None
    """Read instead of the dataset of that name."""
    data_format: str | None
    data_output_path: Path
    """Cache of datasets that are built or unpacked."""
    model: str
    """Folder `<run>/<step>`, or a name on the hub."""
    no_actor_folder: bool
    end_of_conversation_token: str | None
    ref_scores: bool
    """The dataset's own answers are scored and nothing is generated."""
    num_samples: int
    temperature: float
    """0 for greedy decoding."""
    top_k: int
    """0 for all tokens."""
    top_p: float
    max_new_tokens: int
    max_prompt_length: int
    seed: int
    batch_size: int
    gpu: int
    device: str | None
    dtype: DtypeName
    trust_remote_code: bool
    output: Path
    """The result file."""

    @property
    def model_folder(self) -> str:
        """Where the policy is."""
        return self.model if self.no_actor_folder else str(Path(self.model) / "actor")


@dataclass(frozen=True)
class Options(GenerationOptions):
    """What the user of `inference_with_rewards.py` asked for."""

    reward_model: str
    keep_articles: bool


def parse_options(argv: Sequence[str]) -> Options:
    """Read the command line of `inference_with_rewards.py`.

    Raises:
        UserError: a value that cannot work.
    """
    found = vars(_parser().parse_args(argv))
    check_generation(found)
    name = "dataset" if found["ref_scores"] else model_name(found["model"])
    return Options(**with_places(found, f"{name}.jsonl"))


def with_places(found: Mapping[str, Any], file_name: str) -> dict[str, Any]:
    """What was read from the command line, with the published places where none were named.

    Args:
        found: the flags' values.
        file_name: of the result file.
    """
    place = found["proj_path"] / "results" / folder_name(found["dataset"]) / f"temperature={found['temperature']:g}"
    return dict(found) | {
        "output": found["output"] or place / file_name,
        "data_output_path": found["data_output_path"] or found["proj_path"] / "data_cache",
    }


def model_name(model: str) -> str:
    """The name of a model's results: the last two parts of its path, such as `wpr_step-100`."""
    parts = Path(model).expanduser().absolute().parts if _is_local(model) else Path(model).parts
    return "_".join(part for part in parts[-2:] if part != "/")


def _is_local(model: str) -> bool:
    return model.startswith((".", "/", "~")) or Path(model).exists()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inference_with_rewards.py",
        description="Answers held-out prompts with a trained model and scores the answers with a reward model. "
        "Finished rows go to <output>.partial at once; a run that was stopped goes on there, and the result file "
        "appears when all rows are done.",
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to answer, with which models")
    add_what(what, result_name="<run>_<step>.jsonl")
    _add_scored(what)
    add_how(
        parser.add_argument_group("how to answer"),
        top_k=RolloutConfig.sampling_top_k,
        max_new_tokens=RolloutConfig.max_answer_seq_len,
    )
    add_where(parser.add_argument_group("where to run"))
    return parser


def _add_scored(group: Group) -> None:
    add = group.add_argument
    add("--dataset", default="summarize", help=f"{', '.join(HUB_NAMES)}, or a name or path that --data_path takes")
    add("--keep-articles", action="store_true", help="summarize: also the news articles of the evaluation split")
    add("--reward-model", required=True, help="folder that step 2 wrote")
    add("--ref-scores", action="store_true", help="score the dataset's own two answers; nothing is generated")


def add_what(group: Group, *, result_name: str) -> None:
    """Flags that say what is answered, all but the dataset.

    Args:
        group: gets them.
        result_name: of the result file, for the help.
    """
    add = group.add_argument
    add("--proj-path", type=Path, required=True, help="folder that holds results/<dataset>/temperature=<t>/")
    add("--data-path", help="file or folder to read --dataset from, instead of the hub")
    add("--data-format", help="dataset whose columns --data-path has, where its name does not tell")
    add("--data-output-path", type=Path, help="cache of built datasets (default: data_cache in --proj-path)")
    add("--num-samples", type=int, default=2000, help="prompts to answer (default: 2000)")
    add("--model", required=True, help="folder <run>/<step> with the trained model in <run>/<step>/actor")
    add("--no-actor-folder", action="store_true", help="the model is in --model itself, as step 1 writes it")
    add("--end-of-conversation-token", help="token that ends an answer, as in training (default: the EOS)")
    add("--output", type=Path, help=f"result file (default: .../temperature=<t>/{result_name})")


def add_how(group: Group, *, top_k: int, max_new_tokens: int) -> None:
    """Flags that say how tokens are chosen, with two of the defaults."""
    add = group.add_argument
    add("--temperature", type=float, default=RolloutConfig.temperature, help="0 is greedy (default: %(default)s)")
    add("--top-k", type=int, default=top_k, help="sample among this many tokens, 0 for all (default: %(default)s)")
    top_p = RolloutConfig.sampling_top_p
    add("--top-p", type=float, default=top_p, help="sample among the likeliest tokens of this mass (default: 1)")
    add("--max-new-tokens", type=int, default=max_new_tokens, help="longest answer in tokens (default: %(default)s)")
    add("--max-prompt-length", type=int, default=1024, help="longest prompt; longer ones are cut at the front")
    add(
        "--seed",
        type=int,
        default=RuntimeConfig.seed,
        help="of the sampling, never of the choice of prompts (default: %(default)s)",
    )


def add_where(group: Group) -> None:
    """Flags that say where the models run."""
    add = group.add_argument
    add("--batch-size", type=int, default=32, help="rows at a time (default: 32)")
    add("--gpu", type=int, default=0, help="number of the GPU for the models (default: 0)")
    add("--device", help="cpu, cuda or cuda:<n>, before --gpu; without it the CPU is used where there is no GPU")
    add(
        "--dtype",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="precision; auto is bf16 on a GPU and fp32 on the CPU. An answer depends on its row and --seed alone in "
        "fp32; in 16 bits rounding differs with the batch size, and with it now and then a token",
    )
    add("--trust-remote-code", action="store_true", help="run code that lies in the model's folder")


def check_generation(found: Mapping[str, Any]) -> None:
    """Raise UserError for a value of the shared flags that cannot work."""
    for name, least in (
        ("num_samples", 1), ("top_k", 0), ("max_new_tokens", 1), ("max_prompt_length", 1), ("seed", 0),
        ("batch_size", 1), ("gpu", 0), ("temperature", 0),
    ):  # fmt: skip
        value = found[name]
        if not isinstance(value, int | float) or not math.isfinite(value) or value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    top_p = found["top_p"]
    if not isinstance(top_p, float) or not 0 < top_p <= 1:
        raise UserError(f"--top-p must be above 0 and at most 1, got {top_p}")
