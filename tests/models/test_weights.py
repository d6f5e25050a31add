"""Model folders with something missing, damaged, foreign or hostile: one sentence, and nothing of theirs is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dschat.errors import UserError
from dschat.models.causal_lm import load_causal_lm
from dschat.models.checked import check_model
from dschat.models.reward_model import load_token_scorer
from toys.jobs import make_folders

FLAG = "model_name_or_path"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(folders: dict[str, str], tmp_path: Path) -> Path:
    """A copy of a language model's folder, to be damaged."""
    shutil.copytree(folders["sft"], tmp_path / "model")
    return tmp_path / "model"


def look(path: Path | str, *, trust_remote_code: bool = False) -> None:
    """What every step does before weights are read."""
    check_model(FLAG, str(path), trust_remote_code=trust_remote_code)


def load(path: Path | str) -> None:
    load_causal_lm(check_model(FLAG, str(path)), dtype=torch.float32)


def sentence(action: Callable[[Path], None], folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        action(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def change_config(folder: Path, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def cut(file: Path, *, to: int) -> None:
    file.write_bytes(file.read_bytes()[:to])


def shard(folder: Path) -> None:
    """Name two files of weights, of which one is there."""
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    files = {"lm_head.weight": "model-1.safetensors", "model.norm.weight": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def without(*patterns: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return remove


BEFORE_READING: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (without("model.safetensors"), "the folder holds no weights (no model.safetensors); copy them"),
    "empty weights": (lambda f: cut(f / "model.safetensors", to=0), "model.safetensors is damaged or incomplete ("),
    "cut in the header": (lambda f: cut(f / "model.safetensors", to=99), "model.safetensors is damaged or incomplete"),
    "cut in the weights": (lambda f: cut(f / "model.safetensors", to=9_000), "safetensors is damaged or incomplete"),
    "missing shard": (shard, "model-2.safetensors is missing, which model.safetensors.index.json names; copy it"),
    "broken index": (
        lambda f: (f / "model.safetensors.index.json").write_text("[]"),
        "model.safetensors.index.json is damaged; copy the folder again",
    ),
    "no tokenizer": (without("token*"), "the folder has no tokenizer (tokenizer.json or tokenizer.model); copy the"),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        "the tokenizer cannot be loaded (a file lacks 'added_tokens': it is damaged or of another version)",
    ),
    "broken tokenizer settings": (
        lambda f: (f / "tokenizer_config.json").write_text("{"),
        "the tokenizer cannot be loaded (Expecting property name",
    ),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "is not a valid JSON file"),
    "unknown architecture": (lambda f: change_config(f, model_type="wonder"), "has model type `wonder` but"),
}


@pytest.mark.parametrize("fault", BEFORE_READING)
def test_what_can_be_seen_without_reading_weights_is_told_first(fault: str, folder: Path) -> None:
    damage, text = BEFORE_READING[fault]
    look(folder)
    damage(folder)
    message = sentence(look, folder)
    assert message.startswith(f"--model_name_or_path {folder}")
    assert text in message


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    assert "is a file; pass the folder of the model" in sentence(look, tmp_path / "model.bin")


def test_a_name_that_is_neither_on_the_hub_nor_a_folder_says_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"--model_name_or_path sft: .*there is no folder {tmp_path}/sft either"):
        look("sft")


def make_pickle(folder: Path, content: bytes | None) -> Path:
    """Store the weights as older models do; `content` replaces them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    if content is not None:
        (folder / "pytorch_model.bin").write_bytes(content)
    return folder / "pytorch_model.bin"


class RunsAProgram:
    """What a hostile pickle holds."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._canary}",)


def test_pickled_weights_load_whole_and_are_told_when_cut(folder: Path) -> None:
    file = make_pickle(folder, None)
    look(folder)
    load(folder)
    cut(file, to=file.stat().st_size // 2)
    assert "its file of weights is damaged or incomplete; copy it again" in sentence(load, folder)


@pytest.mark.parametrize("plain", [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(plain: bool, folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    file = make_pickle(folder, pickle.dumps(RunsAProgram(canary)))
    if not plain:
        torch.save({"lm_head.weight": RunsAProgram(canary)}, file)
    look(folder)
    message = sentence(load, folder)
    assert "hold more than tensors or are damaged, and could run programs, so they were not read" in message
    assert "pass a folder with model.safetensors" in message
    assert not canary.exists()
    os.system(RunsAProgram(canary).__reduce__()[1][0])
    assert canary.exists()  # it would have


def test_code_in_a_model_folder_is_not_run_and_its_flag_is_named(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (folder / "foreign.py").write_text(
        "import pathlib\nfrom transformers import PretrainedConfig\n"
        f"pathlib.Path({str(canary)!r}).touch()\nclass Foreign(PretrainedConfig):\n    model_type = 'foreign'\n"
    )
    change_config(folder, model_type="foreign", auto_map={"AutoConfig": "foreign.Foreign"})
    message = sentence(look, folder)
    assert "it brings Python code of its own, which is not run unless --trust_remote_code is given" in message
    assert not canary.exists()
    look(folder, trust_remote_code=True)
    assert canary.exists()


@pytest.mark.parametrize("settings", [{"hidden_size": 64}, {"vocab_size": 100}], ids=str)
def test_weights_of_another_shape_than_the_config_says(settings: dict[str, int], folder: Path) -> None:
    change_config(folder, **settings)
    message = sentence(load, folder)
    assert "the weight lm_head.weight has shape [300, 32], but config.json makes it [" in message
    assert "weights and config.json must be of one model" in message


def test_a_reward_model_is_no_language_model(folders: dict[str, str]) -> None:
    with pytest.raises(
        UserError, match=r"lacks the weights lm_head.weight of a causal language model; pass a language"
    ):
        load(folders["reward"])


def test_missing_weights_of_a_reward_model_are_listed(folders: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(folders["reward"], tmp_path / "reward")
    change_config(tmp_path / "reward", num_hidden_layers=3)
    with pytest.raises(UserError, match=r"lacks the weights model.layers.2.*, .*, .* and 6 more$"):
        load_token_scorer(check_model(FLAG, str(tmp_path / "reward")), fresh_head=False, dtype=torch.float32)
