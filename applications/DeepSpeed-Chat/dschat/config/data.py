"""Settings of the texts: where they come from, how the steps share them, how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from dschat.config.flag import Section, flag
from dschat.errors import UserError

SplitBy = Literal["row", "group"]
PromptStyle = Literal["full", "published"]


@dataclass(frozen=True)
class DataConfig(Section):
    """Where the texts come from and how they are shared out among the three steps."""

    group: ClassVar[str] = "data"

    data_path: list[str] = flag(
        ["Dahoas/rm-static"],
        # the rows that come of these are compared by their content
        may_change=True,
        help="Dataset names, or local folders or files with a supported dataset's columns; several are mixed.",
    )
    data_format: str | None = flag(
        None, may_change=True, help="Dataset whose columns a local --data_path has, where its name does not tell."
    )
    data_split: str = flag(
        "2,4,4", help="Proportions of the rows for steps 1, 2 and 3 (2,4,4 is 20, 40 and 40 percent)."
    )
    split_by: SplitBy = flag(
        "row",
        help="What the steps share out. row: rows, in the published permutation. group: posts, with all rows of one in "
        "the same step.",
    )
    data_output_path: str | None = flag(
        None, may_change=True, help="Folder of the tokenised caches; default: data_cache in --output_dir."
    )
    apps_prompt: PromptStyle = flag(
        "full",
        help="Prompts of programming problems. full: with starter code, function name and how it is tested. published: "
        "the problem alone.",
    )
    skip_bad_rows: int = flag(
        0,
        at_least=0,
        help="Unreadable rows that are put up with in a dataset's json or jsonl files; they are left out and counted.",
    )
    end_of_conversation_token: str | None = flag(
        None, help="Token that ends an answer; default (or the text None): the tokenizer's EOS."
    )

    def check(self) -> None:
        """Raise UserError for an end token that is none."""
        if self.end_of_conversation_token == "":
            raise UserError("--end_of_conversation_token is empty; leave it out to use the tokenizer's EOS")


@dataclass(frozen=True)
class SFTDataConfig(Section):
    """What only step 1 may do with its texts."""

    group: ClassVar[str] = "data"

    sft_only_data_path: list[str] = flag([], may_change=True, help="Datasets used by step 1 alone, all rows.")
    loss_on_prompt: bool = flag(False, help="Also train on the prompt's tokens; padding never counts.")
