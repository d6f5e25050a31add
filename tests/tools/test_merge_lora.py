"""Merging an adapter that has left its model's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dschat.config.lora import AdapterSettings
from dschat.errors import UserError
from dschat.models.causal_lm import load_causal_lm
from dschat.models.checked import check_model
from dschat.models.lora import add_adapter
from dschat.models.reward_model import load_token_scorer
from dschat.runtime.model_folders import save_model
from dschat.tools.merge_lora import merge
from toys.jobs import make_folders
from toys.tokenizers import make_tokenizer

ADAPTER = AdapterSettings(
    rank=4, alpha=8.0, module_names=(), learning_rate=1e-3, alone=True, quantized=False, role=""
)  # fmt: skip
TOKENIZER = make_tokenizer()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of an adapted language model and an adapted reward model, as a run leaves them."""
    folder = tmp_path_factory.mktemp("merge")
    paths = make_folders(folder, family="gpt2")
    actor = load_causal_lm(check_model("actor", paths["sft"]), dtype=torch.bfloat16)
    scorer = load_token_scorer(check_model("critic", paths["reward"]), fresh_head=False, dtype=torch.bfloat16)
    for name, model in (("actor", actor), ("critic", scorer.model)):
        add_adapter(model, ADAPTER, seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).bfloat16())
        save_model(model, TOKENIZER, folder / name)
    return folder


@pytest.mark.parametrize(
    ("name", "kind"), [("actor", AutoModelForCausalLM), ("critic", AutoModelForSequenceClassification)]
)
def test_merging_the_parts_gives_the_folder_that_training_wrote(
    name: str, kind: type, trained: Path, tmp_path: Path
) -> None:
    merged = merge(trained / name / "adapter", tmp_path / "merged", base=None)
    ours, theirs = (dict(kind.from_pretrained(path).named_parameters()) for path in (merged, trained / name))
    assert ours.keys() == theirs.keys()
    base = dict(kind.from_pretrained(trained / {"actor": "sft", "critic": "reward"}[name]).named_parameters())
    for weight in ours:  # float32 as the base lies on disk, against the bf16 of the run
        torch.testing.assert_close(ours[weight], theirs[weight].float(), atol=1e-2, rtol=1e-2)
    changed = "transformer.h.0.mlp.c_fc.weight"
    assert (ours[changed] - base[changed]).abs().max() > 0.1
    assert len(AutoTokenizer.from_pretrained(merged)) == len(TOKENIZER)


def test_mistakes_cost_one_sentence(trained: Path, tmp_path: Path) -> None:
    adapter = trained / "actor/adapter"
    with pytest.raises(UserError, match=r"holds no adapter_config\.json"):
        merge(trained / "actor", tmp_path / "out", base=None)
    with pytest.raises(UserError, match="is not empty; choose another folder"):
        merge(adapter, trained / "actor", base=None)
    with pytest.raises(UserError, match=r"base .*nowhere cannot be loaded .*; name its place with --base"):
        merge(adapter, tmp_path / "out", base=str(tmp_path / "nowhere"))


def test_a_base_without_the_added_tokens_is_refused(trained: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    model = AutoModelForCausalLM.from_pretrained(trained / "sft")
    model.resize_token_embeddings(len(TOKENIZER) - 8)
    model.save_pretrained(small)
    with pytest.raises(UserError, match=r"more than the \d+ rows of .*small: the added rows stand in no adapter"):
        merge(trained / "actor/adapter", tmp_path / "out", base=str(small))


def test_an_adapter_of_another_kind_is_refused(trained: Path, tmp_path: Path) -> None:
    settings = json.loads((trained / "actor/adapter/adapter_config.json").read_text())
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(settings | {"task_type": "SEQ_2_SEQ_LM"}))
    with pytest.raises(UserError, match="is for SEQ_2_SEQ_LM; only CAUSAL_LM and SEQ_CLS can be merged"):
        merge(tmp_path / "adapter", tmp_path / "out", base=None)
