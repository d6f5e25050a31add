"""The supported datasets, one small class each, and how a `--data_path` is matched to one.

Texts are those of DeepSpeed-Chat, MA-RLHF and WPR (arXiv 2602.01685), so that published checkpoints see the prompts
they were trained on. Where those publish a fault (citations removed with all parentheses, ties kept as pairs, problems
split apart) the class says what it does instead.
"""

from __future__ import annotations

import difflib
import logging
import re
from pathlib import Path
from typing import Any

from dschat.config.data import DataConfig, PromptStyle, SplitBy
from dschat.data.apps import Apps, TinyApps
from dschat.data.base import ASSISTANT, HUMAN, RawDataset, Row, feature_at, value_at, wrapped
from dschat.data.builtin import BuiltinSource
from dschat.data.column_hints import renaming_hint
from dschat.data.compression import plain_stem
from dschat.data.folders import is_readable
from dschat.data.multilingual import (
    Hc3Chinese,
    MiraclJa,
    MiraclZh,
    MkqaChinese,
    MkqaJapanese,
    QagJaquad,
    QgJaquad,
    ZhihuKol,
)
from dschat.data.sources import HubSource, LocalSource, Source, local_source, missing_path_error
from dschat.data.tiny_apps import TinyAppsSource
from dschat.errors import UserError

logger = logging.getLogger(__name__)

_CITATION = re.compile(r" ?\[\d+(?:\s*[,;–-]\s*\d+)*\]")


class RmStatic(RawDataset):
    """Helpful dialogues; the columns already hold the texts."""

    name = "Dahoas_rm_static"
    hub_name = "Dahoas/rm-static"
    prompt_columns = ("prompt",)
    chosen_columns = ("chosen",)
    rejected_columns = ("rejected",)
    cues = ("Assistant:",)


class FullHhRlhf(RmStatic):
    """HH-RLHF: helpful and harmless dialogues, in the columns of rm-static."""

    name = "Dahoas_full_hh_rlhf"
    hub_name = "Dahoas/full-hh-rlhf"


class SyntheticInstruct(RawDataset):
    """Instructions, each with two models' answers; the hub has a train split only."""

    name = "Dahoas_synthetic_instruct_gptj_pairwise"
    hub_name = "Dahoas/synthetic-instruct-gptj-pairwise"
    prompt_columns = ("prompt",)
    chosen_columns = ("chosen",)
    rejected_columns = ("rejected",)
    before_prompt, after_prompt, before_answer = HUMAN, ASSISTANT, " "


class RlhfRewardDatasets(RawDataset):
    """Dialogues whose answer columns repeat the marker `Assistant:`; an answer is what follows its last one."""

    name = "yitingxie_rlhf_reward_datasets"
    hub_name = "yitingxie/rlhf-reward-datasets"
    prompt_columns = ("prompt",)
    chosen_columns = ("chosen",)
    rejected_columns = ("rejected",)
    after_prompt = "Assistant:"

    def chosen(self, row: Row) -> str | None:
        """The better answer, without its marker."""
        return _after_marker(super().chosen(row))

    def rejected(self, row: Row) -> str | None:
        """The worse answer, without its marker."""
        return _after_marker(super().rejected(row))


class WebGpt(RawDataset):
    """Long answers that cite web pages. Citations such as [1] or [2, 3] are removed; a tie is no pair."""

    name = "openai_webgpt_comparisons"
    hub_name = "openai/webgpt_comparisons"
    prompt_columns = ("question.full_text",)
    chosen_columns = ("answer_0", "answer_1", "score_0", "score_1")
    rejected_columns = chosen_columns
    untyped_columns = frozenset({"score_0", "score_1"})
    before_prompt, after_prompt, before_answer = HUMAN, ASSISTANT, " "
    carve = (95, 5)

    def chosen(self, row: Row) -> str | None:
        """The answer with the higher score, the first one in a tie."""
        return self._answer(row, "answer_1" if self._margin(row) < 0 else "answer_0")

    def rejected(self, row: Row) -> str | None:
        """The answer with the lower score, None in a tie."""
        margin = self._margin(row)
        return self._answer(row, "answer_0" if margin < 0 else "answer_1") if margin else None

    def _answer(self, row: Row, column: str) -> str | None:
        text = row[column]
        return wrapped(self.before_answer, _CITATION.sub("", text)) if isinstance(text, str) else None

    @staticmethod
    def _margin(row: Row) -> float:
        """By how much answer 0 scored higher."""
        return (row["score_0"] or 0.0) - (row["score_1"] or 0.0)


class Shp(RawDataset):
    """Reddit posts, each with two comments of which readers preferred one."""

    name = "stanfordnlp_SHP"
    hub_name = "stanfordnlp/SHP"
    prompt_columns = ("history",)
    chosen_columns = ("human_ref_A", "human_ref_B", "labels")
    rejected_columns = chosen_columns
    untyped_columns = frozenset({"labels"})
    before_prompt, after_prompt, before_answer = HUMAN, ASSISTANT, " "
    evaluation_splits = ("validation", "test")

    def chosen(self, row: Row) -> str | None:
        """Comment A where the label is 1, else B."""
        return wrapped(self.before_answer, row["human_ref_A" if row["labels"] == 1 else "human_ref_B"])

    def rejected(self, row: Row) -> str | None:
        """The other comment."""
        return wrapped(self.before_answer, row["human_ref_B" if row["labels"] == 1 else "human_ref_A"])

    def group(self, row: Row) -> str:
        """The post."""
        return str(row.get("post_id") or row["history"])


class ShareGpt(RawDataset):
    """Dialogues in the Vicuna format, whose roles are renamed; no rejected answers."""

    name = "pvduy_sharegpt_alpaca_oa_vicuna_format"
    hub_name = "pvduy/sharegpt_alpaca_oa_vicuna_format"
    prompt_columns = ("prompt",)
    chosen_columns = ("label",)
    before_answer = " "
    cues = ("Assistant:",)

    def prompt(self, row: Row) -> str | None:
        """The dialogue so far."""
        text = super().prompt(row)
        return text.replace("USER", "Human").replace("ASSISTANT", "Assistant") if text else None


class SummarizeFeedback(RawDataset):
    """TL;DR: Reddit posts (and, in the evaluation split, news articles) with two summaries, one preferred.

    The cue ends in a space and the hub's summaries begin with one; both are kept, as published.
    """

    name = "openai_summarize"
    hub_name = "openai/summarize_from_feedback"
    hub_config = "comparisons"
    prompt_columns = ("info.post",)
    chosen_columns = ("summaries[].text", "choice")
    rejected_columns = chosen_columns
    untyped_columns = frozenset({"choice"})
    cues = ("\nTL;DR: ",)
    evaluation_splits = ("validation", "test")

    def prompt(self, row: Row) -> str | None:
        """Header, subreddit, post and cue; for news the article in place of the post."""
        info = row["info"] or {}
        for field, header in (("post", "POST"), ("article", "ARTICLE")):
            if info.get(field) is not None:
                subreddit = info.get("subreddit")
                place = "" if subreddit is None else f"Subreddit: r/{subreddit}\n"
                return f"{header}\n{place}{info[field]}{self.cues[0]}"
        return None

    def chosen(self, row: Row) -> str | None:
        """The summary that was preferred."""
        return self._summary(row, offset=0)

    def rejected(self, row: Row) -> str | None:
        """The other summary."""
        return self._summary(row, offset=1)

    @staticmethod
    def _summary(row: Row, *, offset: int) -> str | None:
        choice, summaries = row["choice"], row["summaries"]
        if choice not in (0, 1) or not summaries or len(summaries) != 2:
            return None
        return value_at(summaries[(choice + offset) % 2], "text")


class PydocTldr(SummarizeFeedback):
    """The built-in set: docstrings of the standard library in the schema and with the texts of TL;DR."""

    built_in = True

    name = "pydoc_tldr"
    hub_name = "pydoc-tldr"


class JsonFile(RawDataset):
    """The user's own rows: prompt, chosen, rejected, and whatever else a reward source wants to see.

    One space is put before each field, as published; prompts are expected to end in `Assistant:`.
    """

    name = "jsonfile"
    hub_name = "local/jsonfile"
    prompt_columns = ("prompt",)
    chosen_columns = ("chosen",)
    rejected_columns = ("rejected",)
    before_prompt, before_answer = " ", " "
    cues = ("Assistant:", "TL;DR:", "TL;DR: ")
    evaluation_splits = ("validation", "test")

    def record(self, row: Row) -> dict[str, Any]:
        """All columns of the row, with the prompt and the chosen answer as the model sees them."""
        return {**row, **super().record(row)}


# In the published order: where a name is matched by a part of it, the first match wins.
_MATCHERS: dict[str, type[RawDataset]] = {
    "Dahoas/rm-static": RmStatic,
    "full-hh-rlhf": FullHhRlhf,
    "Dahoas/synthetic-instruct-gptj-pairwise": SyntheticInstruct,
    "yitingxie/rlhf-reward-datasets": RlhfRewardDatasets,
    "openai/webgpt_comparisons": WebGpt,
    "SHP": Shp,
    "pvduy/sharegpt_alpaca_oa_vicuna_format": ShareGpt,
    "wangrui6/Zhihu-KOL": ZhihuKol,
    "Cohere/miracl-zh-queries-22-12": MiraclZh,
    "Hello-SimpleAI/HC3-Chinese": Hc3Chinese,
    "mkqa-Chinese": MkqaChinese,
    "mkqa-Japanese": MkqaJapanese,
    "Cohere/miracl-ja-queries-22-12": MiraclJa,
    "lmqg/qg_jaquad": QgJaquad,
    "lmqg/qag_jaquad": QagJaquad,
    "summarize_from_feedback": SummarizeFeedback,
    "codeparrot/apps": Apps,
    "local/jsonfile": JsonFile,
}
_KINDS: tuple[type[RawDataset], ...] = (*_MATCHERS.values(), PydocTldr, TinyApps)
_CLASSES = {kind.hub_name: kind for kind in _KINDS}


def find_raw_dataset(
    path: str,
    *,
    data_format: str | None = None,
    seed: int,
    cache_dir: Path,
    split_by: SplitBy = DataConfig.split_by,
    apps_prompt: PromptStyle = DataConfig.apps_prompt,
    skip_bad_rows: int = 0,
) -> RawDataset:
    """The dataset that a `--data_path` means; nothing is downloaded yet.

    An existing file or folder is read in place of the hub: as `data_format` if given, else as its name tells, else as
    its columns tell. Anything else is a hub name: a supported one, or one that contains the name of a supported one,
    or any at all with `data_format`.

    Args:
        path: hub name, `pydoc-tldr`, `tiny-apps`, `local/jsonfile`, or a local path.
        data_format: name of the supported dataset whose columns the data has.
        seed: for datasets made or carved here.
        cache_dir: for unpacked parquet and the built-in datasets.
        split_by: see `RawDataset`.
        apps_prompt: see `Apps`; means nothing to other datasets.
        skip_bad_rows: see `local_source`.
    Raises:
        UserError: a path that is not there, an unknown name, or columns that tell nothing.
    """
    kind, source = _find(path, data_format, seed, cache_dir, skip_bad_rows)
    if issubclass(kind, Apps):
        return kind(source, label=path, seed=seed, split_by=split_by, prompt_style=apps_prompt)
    return kind(source, label=path, seed=seed, split_by=split_by)


def _find(
    path: str, data_format: str | None, seed: int, cache_dir: Path, skip_bad_rows: int
) -> tuple[type[RawDataset], Source]:
    """The class of a `--data_path` and where its rows are."""
    given = None if data_format is None else _by_name(data_format)
    if data_format is not None and given is None:
        raise _unknown(f"--data_format {data_format} is not a supported dataset", data_format)
    local = Path(path).expanduser()
    if path == JsonFile.hub_name and not local.exists():
        local = Path(__file__).resolve().parents[2] / "data"  # its published place, beside the package
        if not (local / "train.json").is_file():
            raise UserError(
                f"--data_path {path} reads {local / 'train.json'} and eval.json, and there is none; put them there, or "
                "pass your own file or folder as --data_path"
            )
        given = JsonFile
    if local.exists():
        source = local_source(local, configs=_configs(given), cache_dir=cache_dir, skip_bad_rows=skip_bad_rows)
        kind = given or _by_local_name(local) or _by_columns(local, source)
        logger.info("%s is read as %s", local.absolute(), kind.hub_name)
        return kind, source
    if path not in _CLASSES and _looks_local(path):
        raise missing_path_error(path)
    if path == PydocTldr.hub_name:
        return PydocTldr, BuiltinSource(seed, cache_dir)
    if path == TinyApps.hub_name:
        return TinyApps, TinyAppsSource(cache_dir)
    kind, repository = _on_hub(path, given)
    if given not in (None, kind):
        logger.warning("--data_format %s does not apply to %s, whose format is known", data_format, path)
    return kind, HubSource(repository, kind.hub_config)


def _on_hub(path: str, given: type[RawDataset] | None) -> tuple[type[RawDataset], str]:
    """The class of a hub name and the repository to load."""
    if path in _CLASSES:
        return _CLASSES[path], _CLASSES[path].repository or path
    if given is not None:
        return given, path
    kind = _by_name(path)
    if kind is None:
        raise _unknown(f"dataset {path} is neither a local file or folder nor supported", path)
    logger.info("%s is read as %s", path, kind.hub_name)
    return kind, path if "/" in path else kind.repository or kind.hub_name


def _by_name(name: str) -> type[RawDataset] | None:
    """The class with this name, else the first whose published matcher is a part of it."""
    return _CLASSES.get(name) or next((kind for part, kind in _MATCHERS.items() if part in name), None)


def _by_local_name(path: Path) -> type[RawDataset] | None:
    """The class that is named exactly like a local path: owner/name, name alone, or with the owner's / replaced."""
    absolute = path.absolute()
    names = {f"{absolute.parent.name}/{absolute.name}", absolute.name, plain_stem(absolute)}
    for hub_name, kind in _CLASSES.items():
        spellings = {
            hub_name,
            hub_name.split("/")[-1],
            *(hub_name.replace("/", mark) for mark in ("_", "-", "--", "__")),
        }
        if names & spellings:
            return kind
    return None


def _by_columns(path: Path, source: LocalSource) -> type[RawDataset]:
    """The only class whose columns the data has; JsonFile wherever it is prompt / chosen / rejected."""
    features = source.features()
    matches = [
        kind
        for kind in _CLASSES.values()
        if not kind.built_in and all(feature_at(features, column) is not None for column in kind.required_columns())
    ]
    if JsonFile in matches:
        return JsonFile
    if len(matches) == 1:
        return matches[0]
    if not matches and "prompt" in features:
        return JsonFile
    found = f"{path.absolute()} has the columns {', '.join(features) or '(none)'}"
    if matches:
        names = ", ".join(kind.hub_name for kind in matches)
        raise UserError(f"{found}, which fit several datasets ({names}); say which with --data_format")
    hint = renaming_hint(features, JsonFile.required_columns())
    raise UserError(
        f"{found}, which fit no supported dataset; {hint}use the columns prompt, chosen and rejected, or say the "
        f"format with --data_format, one of: {', '.join(_CLASSES)}"
    )


def _configs(kind: type[RawDataset] | None) -> set[str]:
    """Names of hub configurations that sub-folders may carry."""
    return {config for each in ([kind] if kind else _CLASSES.values()) if (config := each.hub_config)}


def _looks_local(path: str) -> bool:
    """Whether a name that does not exist was meant as a path; such a name is never looked up on the hub."""
    if path.startswith((".", "/", "~")) or path.endswith("/") or is_readable(Path(path)) or path.count("/") > 1:
        return True
    return (
        "/" in path
        and Path(path).parts[0] not in {name.split("/")[0] for name in _CLASSES}
        and Path(path).parent.is_dir()
    )


def _unknown(what: str, name: str) -> UserError:
    lowered = {known.lower(): known for known in _CLASSES}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=2, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UserError(f"{what}; {hint}supported are {', '.join(_CLASSES)}, and local paths in one of their formats")


def _after_marker(text: str | None) -> str | None:
    return None if text is None else text.split("Assistant:")[-1]
