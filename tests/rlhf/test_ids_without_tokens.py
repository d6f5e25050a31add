"""PPO with a tokenizer whose ids have gaps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dschat.models.checked import check_model
from dschat.models.reward_model import load_token_scorer
from dschat.runtime.model_folders import save_model
from toys.jobs import Job, ppo_arguments, run_job, without_times, write_pairs
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer_with_gaps

EOS, ROWS = 305, 320
GAPS = [3, *range(300, 305)]


def run(folder: Path, step: str, extra: str, *, gap_rows: float) -> list[dict[str, Any]]:
    """Two steps of PPO; what fills the rows that no token has is multiplied by `gap_rows`."""
    tokenizer = make_tokenizer_with_gaps(eos=EOS)
    model = make_causal_lm("llama", vocab_size=ROWS)
    with torch.no_grad():
        for table in (model.lm_head.weight, model.get_input_embeddings().weight):
            table[[*GAPS, *range(EOS + 1, ROWS)]] *= gap_rows
    save_model(model, tokenizer, folder / "sft")
    torch.manual_seed(0)
    scorer = load_token_scorer(check_model("actor", str(folder / "sft")), fresh_head=True, dtype=torch.float32)
    save_model(scorer.model, tokenizer, folder / "reward")
    paths = {"data": str(write_pairs(folder / "pairs.jsonl")), "sft": str(folder / "sft"), "reward": f"{folder}/reward"}
    return without_times(run_job(Job(step, ppo_arguments(paths, folder / "out", f"--max_steps 2 {extra}"))))


@pytest.mark.parametrize(
    ("step", "extra"),
    [
        ("ppo", "--entropy_coef 0.01"),
        ("wpr", "--top_k 8 --cost_dim 16 --epsilon 0.1"),
        # a support of the whole table, gaps included
        ("wpr", "--top_k 400 --cost_dim 16 --transport capped --debias --epsilon_unit nearest --epsilon 0.5"),
    ],
)
def test_what_stands_in_rows_without_a_token_changes_no_metric(
    step: str, extra: str, tmp_path: Path, process_group: torch.device
) -> None:
    lines = run(tmp_path / "as_they_are", step, extra, gap_rows=1.0)
    assert len(lines) == 2
    assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    assert run(tmp_path / "large", step, extra, gap_rows=30.0) == lines
