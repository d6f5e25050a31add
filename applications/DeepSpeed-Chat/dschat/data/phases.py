"""The data of one step: chosen rows, token ids in a cache, and batches.

sft trains on prompt + chosen, reward on prompt + chosen against prompt + rejected, ppo on prompts alone.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dschat.config.data import DataConfig, PromptStyle, SplitBy
from dschat.data.base import RawDataset
from dschat.data.batches import PairBatch, PromptBatch, SFTBatch
from dschat.data.cache import cached_folder, code_key, content_key, quiet_datasets
from dschat.data.raw_datasets import find_raw_dataset
from dschat.data.splits import Phase, parse_proportions, phase_indices
from dschat.data.tokenise import Sample, Tally, TextEncoder
from dschat.errors import UserError

__all__ = [
    "DataReport",
    "DataSource",
    "Phase",
    "PhaseData",
    "RowCounts",
    "build_phase",
    "collate_pairs",
    "collate_prompts",
    "collate_sft",
    "epoch_order",
    "rank_rows",
]

logger = logging.getLogger(__name__)

IGNORED_LABEL = -100
"""The label that PyTorch's cross entropy leaves out."""

_SFT_ONLY_SPLIT = "10,0,0"
_ROWS_AT_ONCE = 1_000
_IDS = List(Value("int32"))
_FEATURES: dict[Phase, Features] = {
    "sft": Features({"input_ids": _IDS, "prompt_length": Value("int32")}),
    "reward": Features({"chosen_ids": _IDS, "rejected_ids": _IDS, "prompt_length": Value("int32")}),
    "ppo": Features({"input_ids": _IDS, "record": Value("large_string")}),
}
_LENGTH_FLAG: dict[Phase, str] = {"sft": "--max_seq_len", "reward": "--max_seq_len", "ppo": "--max_prompt_seq_len"}


@dataclass(frozen=True)
class DataSource:
    """Which data, in plain values."""

    data_path: tuple[str, ...]
    """Hub names, local paths, `pydoc-tldr` or `tiny-apps`; several are put together."""
    data_format: str | None
    """Supported dataset whose columns local data has; None to tell from the path or the columns."""
    data_split: str
    """Proportions of steps 1, 2 and 3, such as "2,4,4"."""
    split_by: SplitBy
    """"row" for the published split, "group" to keep all rows of a post or problem in one step."""
    sft_only_data_path: tuple[str, ...]
    """More datasets, used whole and for SFT alone."""
    seed: int
    cache_dir: Path
    end_of_conversation: str | None
    """Text of the one token that ends an answer; None for the tokenizer's EOS."""
    apps_prompt: PromptStyle = DataConfig.apps_prompt
    """What the prompts of programming problems say; see `dschat.data.apps`."""
    skip_bad_rows: int = 0
    """Rows of each dataset's JSON files that may be left out because they cannot be read."""
    needs_tests: bool = False
    """Whether PPO leaves out rows without tests that can be run."""
    loss_on_prompt: bool = False
    """Whether the SFT loss covers prompts too; a matter of `collate_sft`, not of the cached data."""


@dataclass(frozen=True)
class RowCounts:
    """What became of the rows of a split."""

    rows: int = 0
    kept: int = 0
    shortened_prompts: int = 0
    """Kept rows whose prompt was cut at the front."""
    repeated_prompts: int = 0
    """Kept PPO rows whose prompt an earlier row already has."""
    longest_prompt: int = 0
    """Tokens, before shortening."""
    unreadable: int = 0
    """Rows of the files that are not JSON or lack a text, of all splits."""
    empty_prompts: int = 0
    empty_responses: int = 0
    """Rows without the chosen (in the reward step: or the rejected) answer."""
    without_tests: int = 0
    """PPO rows whose problem has no tests that can be run, where they are needed."""
    equal_pairs: int = 0
    """Pairs of which both answers are the same tokens."""
    too_long: int = 0
    """Rows in which the end of the prompt and the answer do not fit together."""

    def dropped(self) -> dict[str, int]:
        """Rows that were left out, by reason; reasons that did not occur are not listed."""
        reasons = {
            "unreadable": self.unreadable,
            "without a prompt": self.empty_prompts,
            "without a response": self.empty_responses,
            "without usable tests": self.without_tests,
            "with two equal responses": self.equal_pairs,
            "too long to shorten": self.too_long,
        }
        return {reason: count for reason, count in reasons.items() if count}


@dataclass(frozen=True)
class DataReport:
    """What became of the data of a step."""

    phase: Phase
    max_length: int
    train: RowCounts
    evaluation: RowCounts

    def summary(self) -> str:
        """One or two plain sentences for the log."""
        parts = [
            f"data for {self.phase}: {_counted('training', self.train)}; {_counted('evaluation', self.evaluation)}"
        ]
        beside = "" if self.phase == "ppo" else " with their responses"
        if self.train.shortened_prompts or self.evaluation.shortened_prompts:
            parts.append(
                f"prompts cut at the front to fit {self.max_length:,} tokens{beside}: "
                f"{self.train.shortened_prompts:,} and {self.evaluation.shortened_prompts:,}, the longest had "
                f"{max(self.train.longest_prompt, self.evaluation.longest_prompt):,} tokens"
            )
        if self.train.repeated_prompts:
            parts.append(f"{self.train.repeated_prompts:,} training prompts repeat an earlier one")
        return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


@dataclass(frozen=True)
class PhaseData:
    """Tokenised rows of one step, memory-mapped: integers index rows, each a dict of lists of ints.

    sft: {"input_ids", "prompt_length"}; reward: {"chosen_ids", "rejected_ids", "prompt_length"};
    ppo: {"input_ids", "record"}, the record as JSON text.
    """

    train: Sequence[dict[str, Any]]
    evaluation: Sequence[dict[str, Any]]
    report: DataReport
    key: str
    """Stands for the content of these rows."""


def build_phase(source: DataSource, *, phase: Phase, tokenizer: PreTrainedTokenizerBase, max_length: int) -> PhaseData:
    """Select and tokenise the rows of one step, or find them in the cache.

    Several processes may call this at once. The evaluation split is divided by the same proportions as the train split
    (it is used whole where it is too small to divide), so steps never share evaluation rows either.

    Args:
        source: which data.
        phase: the step.
        tokenizer: of the model that is trained.
        max_length: most tokens of prompt and answer together; in PPO of the prompt.
    Raises:
        UserError: data that is missing, malformed, lacks a column, or of which nothing is left; in PPO also when no
            prompt fits uncut.
    """
    parse_proportions(source.data_split, phase=phase)  # before anything is read
    encoder = TextEncoder.create(tokenizer, end_of_conversation=source.end_of_conversation, max_length=max_length)
    parts = _raw_parts(source, phase)
    key = content_key(
        {
            "code": code_key(),
            "phase": phase,
            "rows": [[raw.fingerprint(), split] for raw, split in parts],
            "split_by": source.split_by,
            "seed": source.seed,
            "skip_bad_rows": source.skip_bad_rows,
            "needs_tests": source.needs_tests,
            "encoder": encoder.fingerprint(),
        }
    )
    folder = cached_folder(
        source.cache_dir, f"{phase}_{key}", lambda aside: _write(aside, parts, source, phase, encoder)
    )
    report = json.loads((folder / "report.json").read_text())
    return PhaseData(
        train=datasets.load_from_disk(str(folder / "train")),
        evaluation=datasets.load_from_disk(str(folder / "evaluation")),
        report=DataReport(phase, max_length, RowCounts(**report["train"]), RowCounts(**report["evaluation"])),
        key=key,
    )


def _raw_parts(source: DataSource, phase: Phase) -> list[tuple[RawDataset, str]]:
    """Each dataset of a step with its split."""
    named = [(path, source.data_split) for path in source.data_path]
    if phase == "sft":
        named += [(path, _SFT_ONLY_SPLIT) for path in source.sft_only_data_path]
    if not named:
        raise UserError("--data_path is empty; name a dataset, a local file or folder, or pydoc-tldr")
    return [
        (
            find_raw_dataset(
                path,
                data_format=source.data_format,
                seed=source.seed,
                cache_dir=source.cache_dir,
                split_by=source.split_by,
                apps_prompt=source.apps_prompt,
                skip_bad_rows=source.skip_bad_rows,
            ),
            split,
        )
        for path, split in named
    ]


def _write(
    folder: Path, parts: Sequence[tuple[RawDataset, str]], source: DataSource, phase: Phase, encoder: TextEncoder
) -> None:
    """Fill a cache folder: train, evaluation, report.json."""
    tokenised: dict[str, list[Dataset]] = {"train": [], "evaluation": []}
    tallies: dict[str, Tally] = {"train": Counter(), "evaluation": Counter()}
    for raw, split in parts:
        splits = raw.load(phase)
        for count in ("rows", "unreadable"):
            tallies["train"][count] += raw.unreadable_rows
        for name, rows, expand in (("train", splits.train, True), ("evaluation", splits.evaluation, False)):
            chosen = _rows_of_phase(raw, rows, phase, split, source)
            if len(chosen) == 0 and name == "evaluation":
                chosen = rows
            tokenised[name].append(
                _tokenise(raw, chosen, phase, encoder, tallies[name], expand=expand, needs_tests=source.needs_tests)
            )
    labels = ", ".join(raw.label for raw, _ in parts)
    _check_kept(tallies["train"], tallies["evaluation"], phase, encoder.max_length, source.data_split, labels)
    report = {}
    for name, pieces in tokenised.items():
        table = datasets.concatenate_datasets(pieces)
        if len(parts) > 1:
            table = table.select(np.random.RandomState(source.seed).permutation(len(table)))
        with quiet_datasets():
            table.save_to_disk(str(folder / name))
        repeated = len(table) - len({tuple(ids) for ids in table["input_ids"]}) if phase == "ppo" else 0
        report[name] = asdict(RowCounts(**tallies[name], repeated_prompts=repeated))
    (folder / "report.json").write_text(json.dumps(report))


def _rows_of_phase(raw: RawDataset, rows: Dataset, phase: Phase, split: str, source: DataSource) -> Dataset:
    """The rows of a step, in permuted order."""
    groups = [raw.group(row) for row in rows] if source.split_by == "group" else None
    indices = phase_indices(
        len(rows), phase, data_split=split, seed=source.seed, split_by=source.split_by, groups=groups
    )
    return rows.select(indices)


def _tokenise(
    raw: RawDataset,
    rows: Dataset,
    phase: Phase,
    encoder: TextEncoder,
    tally: Tally,
    *,
    expand: bool,
    needs_tests: bool,
) -> Dataset:
    """Token ids of rows, as Arrow, some rows at a time so that Python lists stay few."""
    pieces = []
    samples: list[Sample] = []
    for row in rows:
        found = raw.expand(row, phase) if expand else [row]
        samples.extend(_sample(raw, each, phase, needs_tests=needs_tests) for each in found)
        if len(samples) >= _ROWS_AT_ONCE:
            pieces.append(_encoded(samples, phase, encoder, tally))
            samples = []
    pieces.append(_encoded(samples, phase, encoder, tally))
    return datasets.concatenate_datasets(pieces)


def _encoded(samples: Sequence[Sample], phase: Phase, encoder: TextEncoder, tally: Tally) -> Dataset:
    items = list(encoder.encode(samples, phase, tally))
    columns = {name: [item[name] for item in items] for name in _FEATURES[phase]}
    return Dataset.from_dict(columns, features=_FEATURES[phase])


def _sample(raw: RawDataset, row: Mapping[str, Any], phase: Phase, *, needs_tests: bool) -> Sample:
    """The texts of a row that a step needs; columns of other steps are not touched, they may not exist."""
    prompt = raw.prompt(row)
    return Sample(
        prompt=prompt,
        chosen=None if phase == "ppo" else raw.chosen(row),
        rejected=raw.rejected(row) if phase == "reward" else None,
        cue=raw.cue(prompt) if prompt else "",
        record=json.dumps(raw.record(row), default=str) if phase == "ppo" else "{}",
        lacks_tests=needs_tests and not raw.has_tests(row),
    )


def _check_kept(train: Tally, evaluation: Tally, phase: Phase, max_length: int, split: str, labels: str) -> None:
    """Refuse data of which nothing is left, and prompts that all had to be cut."""
    if train["rows"] == 0:
        raise UserError(f'--data_split "{split}" leaves no row of {labels} for {phase}; give its part more or add rows')
    if train["without_tests"] == train["rows"]:
        raise UserError(
            f"--data_path {labels} holds no problems with tests; pass codeparrot/apps, tiny-apps, or your own data "
            "with the columns of APPS"
        )
    prompts = train["kept"] + train["too_long"]
    if phase == "ppo" and prompts and train["shortened_prompts"] + train["too_long"] == prompts:
        raise UserError(
            f"0 of {prompts:,} prompts fit --max_prompt_seq_len {max_length}; the longest has "
            f"{train['longest_prompt']:,} tokens, raise the limit"
        )
    for name, tally in (("training", train), ("evaluation", evaluation)):
        if tally["kept"] == 0:
            raise UserError(
                f"no {name} row of {labels} is usable for {phase}: {_counted(name, RowCounts(**tally))}; mend the data "
                f"or raise {_LENGTH_FLAG[phase]} (now {max_length})"
            )


def _counted(name: str, counts: RowCounts) -> str:
    """How many rows of a split are used, and why the others are not."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.dropped().items())
    return f"{counts.kept:,} of {counts.rows:,} {name} rows are used" + (f" (left out: {reasons})" if reasons else "")


def collate_sft(items: Sequence[Mapping[str, Any]], *, pad_token_id: int, loss_on_prompt: bool = False) -> SFTBatch:
    """Right-pad sft rows to the longest.

    Args:
        items: B rows of `PhaseData`; none gives tensors of shape [0, 0].
        pad_token_id: fills padding; may equal any other id.
        loss_on_prompt: whether prompts are labelled too.
    Returns:
        input_ids, attention_mask, labels: each [B, L] int64.
    """
    input_ids, attention_mask = _padded([item["input_ids"] for item in items], pad_token_id)
    starts = torch.tensor([0 if loss_on_prompt else item["prompt_length"] for item in items], dtype=torch.int64)
    positions = torch.arange(input_ids.shape[1])
    counted = attention_mask.bool() & (positions >= starts[:, None])
    return SFTBatch(input_ids, attention_mask, torch.where(counted, input_ids, IGNORED_LABEL))


def collate_pairs(items: Sequence[Mapping[str, Any]], *, pad_token_id: int) -> PairBatch:
    """Right-pad reward rows to the longest of all: first every chosen, then every rejected.

    Args:
        items: B rows of `PhaseData`; none gives tensors of shape [0, 0] and [0].
        pad_token_id: fills padding; may equal any other id.
    Returns:
        input_ids, attention_mask: [2B, L] int64; response_start: [2B] int64.
    """
    rows = [item["chosen_ids"] for item in items] + [item["rejected_ids"] for item in items]
    input_ids, attention_mask = _padded(rows, pad_token_id)
    start = torch.tensor([item["prompt_length"] for item in items], dtype=torch.int64)
    return PairBatch(input_ids, attention_mask, torch.cat([start, start]))


def collate_prompts(items: Sequence[Mapping[str, Any]], *, pad_token_id: int, pad_to: int | None = None) -> PromptBatch:
    """Left-pad ppo rows.

    Args:
        items: B rows of `PhaseData`.
        pad_token_id: fills padding; may equal any other id.
        pad_to: width P of the batch, at least the longest prompt; None for the longest prompt.
    Returns:
        input_ids, attention_mask: [B, P] int64, and the B records.
    """
    rows = [item["input_ids"][::-1] for item in items]
    input_ids, attention_mask = _padded(rows, pad_token_id, width=pad_to)
    records = tuple(json.loads(item["record"]) for item in items)
    return PromptBatch(input_ids.flip(-1), attention_mask.flip(-1), records)


def _padded(rows: Sequence[Sequence[int]], pad_token_id: int, *, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Right-padded rows and their mask, each [B, L] int64, L the longest row or `width`."""
    lengths = [len(row) for row in rows]
    longest = max(lengths, default=0)
    if width is not None and width < longest:
        raise ValueError(f"a row of {longest} tokens does not fit a width of {width}")
    input_ids = torch.full((len(rows), longest if width is None else width), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        attention_mask[index, : len(row)] = 1
    return input_ids, attention_mask


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the rows.

    Returns:
        [num_rows] int64, a permutation that depends on seed and epoch alone, so that a resumed run or another number
        of ranks sees the same batches.
    """
    return np.random.RandomState([seed, epoch]).permutation(num_rows)


def rank_rows(order: np.ndarray, *, step: int, global_batch: int, rank: int, world: int) -> list[int]:
    """The rows of one rank in one step.

    Global batch g is order[g·G : (g+1)·G] whatever the number of ranks; ranks take contiguous slices of it, as equal as
    they can be. The last batch may be short, and then a rank may get fewer rows than others, or none.

    Args:
        order: [n], see `epoch_order`.
        step: g, from 0.
        global_batch: G, rows of all ranks together.
        rank, world: this rank and the number of ranks.
    Returns:
        Row indices, at most ceil(G / world).
    """
    batch = order[step * global_batch : (step + 1) * global_batch]
    return [int(row) for row in batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]]
