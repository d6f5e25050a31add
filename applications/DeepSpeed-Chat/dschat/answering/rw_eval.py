"""Asks a reward model about pairs of which anybody can tell the better answer."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from dschat.data.base import ASSISTANT, HUMAN
from dschat.data.collate import collate_pairs
from dschat.data.stages import REWARD
from dschat.data.tokenise import Sample, TextEncoder
from dschat.errors import UserError
from dschat.models.checked import check_model
from dschat.models.reward_model import check_has_head, end_scores, load_token_scorer

ROW_LENGTH = 512
SAMPLES = tuple(
    Sample(prompt=f"{HUMAN}{question}{ASSISTANT}", answers=(f" {good}", f" {bad}"), cue=ASSISTANT)
    for question, good, bad in (
        (
            "Please tell me about Mount Everest.",
            "Mount Everest is the highest mountain on Earth, 8,849 metres above sea level. It stands in the Himalaya "
            "on the border between Nepal and China, and was first climbed in 1953.",
            "I do not know, I do not know, I do not know.",
        ),
        (
            "How can I fall asleep more easily?",
            "Go to bed at the same time every day, keep the room dark and cool, and put screens away an hour before.",
            "Bananas. The the sleep of is blue, nobody cares, stop asking.",
        ),
    )
)


@torch.no_grad()
def score_pairs(path: str, *, end_token: str | None) -> list[tuple[float, float]]:
    """Scores of the good and of the bad answer of each pair, at the answer's end token.

    Args:
        path: folder that step 2 wrote.
        end_token: text of the token that ends an answer, None for the EOS.
    Raises:
        UserError: no such model, or a model without a trained score head.
    """
    checked = check_model("model_name_or_path", path, end_of_conversation_token=end_token)
    check_has_head(checked)
    encoder = TextEncoder.create(
        checked.tokenizer,
        end_of_conversation=end_token,
        max_length=min(ROW_LENGTH, checked.num_positions or ROW_LENGTH),
    )
    items = list(encoder.encode(SAMPLES, REWARD, Counter()))
    if len(items) < len(SAMPLES):
        raise UserError(
            f"{checked.path} takes rows of {encoder.max_length} tokens, for which these questions are too long"
        )
    batch = collate_pairs(items, pad_token_id=checked.pad_token_id)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    scorer = load_token_scorer(checked, fresh_head=False, dtype=dtype).to(device).eval()
    mask = batch.attention_mask.to(device)
    good, bad = end_scores(scorer(batch.input_ids.to(device), mask), mask).chunk(2)
    return list(zip(good.tolist(), bad.tolist(), strict=True))


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="rw_eval.py", description="Scores of good and bad answers to two questions.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--model_name_or_path", required=True, help="the step_<n> folder that step 2 wrote")
    add("--end_of_conversation_token", help="token that ends an answer, as in training (default: the EOS)")
    return parser.parse_args(argv)


def main() -> None:
    """Score, then show."""
    arguments = parse_arguments(sys.argv[1:])
    disable_progress_bar()
    scores = score_pairs(arguments.model_name_or_path, end_token=arguments.end_of_conversation_token)
    table = Table("question", "good answer", "bad answer", "the good one wins")
    for sample, (good, bad) in zip(SAMPLES, scores, strict=True):
        question = (sample.prompt or "").removeprefix(HUMAN).removesuffix(ASSISTANT)
        table.add_row(Text(question), f"{good:+.3f}", f"{bad:+.3f}", "yes" if good > bad else "no")
    Console(highlight=False).print(table)
