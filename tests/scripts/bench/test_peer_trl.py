"""The comparison with TRL: what it needs is said, and how its numbers are summed up."""

from __future__ import annotations

import argparse
import importlib.util
import json
from importlib import metadata
from pathlib import Path

import pytest
import torch
from rich.console import Console

import peer_trl
from dschat.errors import UserError


def test_without_trl_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="this comparison needs TRL: pip install trl=="):
        peer_trl.measure(argparse.Namespace(), Console())


def test_the_ratio_is_the_median_of_the_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: f"version of {name}")
    options = argparse.Namespace(batch=4, answer_tokens=8, output=tmp_path / "found.json")
    rounds = [{"dschat": 1.0, "trl": 2.0}, {"dschat": 30.0, "trl": 30.0}, {"dschat": 1.2, "trl": 2.0}]
    console = Console(width=160, record=True)
    peer_trl.report(options, rounds, [5, 9, 7], torch.device("cpu"), console)
    assert "prompts of 5 to 9 tokens (median 7)" in console.export_text(clear=False)
    assert "dschat / TRL: 0.60 (0.50 to 1.00)" in console.export_text()
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["medians"] == {"dschat": 1.2, "trl": 2.0}
    assert written["ratio"] == pytest.approx(0.6)
