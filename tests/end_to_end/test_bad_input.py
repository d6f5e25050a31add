"""Mistakes cost one sentence and a non-zero exit, before any weights are read."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from dschat.errors import TrainingFault, UserError
from dschat.models import causal_lm, reward_model
from tests.launch import REPOSITORY
from toys.jobs import Job, make_folders, ppo_arguments, run_job, supervised_arguments
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer

REMEDY = re.compile(
    r"did you mean|expected \{|"
    r"\b(add|call|change|check|choose|copy|correct|drop|give|leave|lower|mend|name|pass|raise|set|train|try|use|write)\b"
)
"""What a sentence says that is to be done."""
MOST_CPU_SECONDS = 10.0
"""Of a program that ends in a mistake; most of it is the libraries' import."""
STEP1 = REPOSITORY / "applications/DeepSpeed-Chat/training/step1_supervised_finetuning/main.py"
STEP3 = REPOSITORY / "applications/DeepSpeed-Chat/training/step3_rlhf_finetuning/main_wpr.py"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def weights_must_not_be_read(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Make loading a model an error, except in tests that are about training itself."""
    if "trains" in request.keywords:
        return

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model was loaded before the mistake was noticed")

    monkeypatch.setattr(causal_lm.AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(reward_model.AutoModelForSequenceClassification, "from_pretrained", refuse)


def sentence_of(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        run_job(job)
    text = str(caught.value)
    assert "\n" not in text
    assert REMEDY.search(text), text
    return text


def sft(paths: dict[str, str], tmp_path: Path, extra: str) -> str:
    return sentence_of(Job("sft", supervised_arguments(paths, "sft", tmp_path / "out", extra)))


def ppo(paths: dict[str, str], tmp_path: Path, extra: str) -> str:
    return sentence_of(Job("ppo", ppo_arguments(paths, tmp_path / "out", extra)))


def test_missing_model_folder_names_the_nearest(paths: dict[str, str], tmp_path: Path) -> None:
    wrong = paths["sft"].replace("/sft", "/sftt")
    text = sft(paths, tmp_path, f"--model_name_or_path {wrong}")
    assert f"there is no folder {wrong}; did you mean {paths['sft']}?" in text


def test_folder_above_the_checkpoints_names_the_checkpoint(paths: dict[str, str], tmp_path: Path) -> None:
    text = sft(paths, tmp_path, f"--model_name_or_path {Path(paths['sft']).parent}")
    assert "has no config.json; did you mean" in text


def test_unknown_dataset(paths: dict[str, str], tmp_path: Path) -> None:
    job = supervised_arguments(paths, "sft", tmp_path / "out", "--data_path openai/sumarize_from_feedback")
    job = [word for word in job if word not in ("--data_format", "local/jsonfile")]
    assert "openai/summarize_from_feedback" in sentence_of(Job("sft", job))


def test_missing_data_file(paths: dict[str, str], tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere.jsonl") in sft(paths, tmp_path, f"--data_path {tmp_path / 'nowhere.jsonl'}")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['{"prompt": "a", "chosen": "b"}'] * 20, "rejected"),
        ([], "has no row"),
        (['{"prompt": "a", "chosen": "b", "rejected": "c"}', '{"prompt": "a"'], ":2"),
    ],
)
def test_faults_in_the_data_file(lines: list[str], expected: str, paths: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(lines) + "\n")
    arguments = supervised_arguments(paths, "sft", tmp_path / "out", f"--data_path {file}")
    text = sentence_of(Job("reward", arguments))
    assert expected in text
    assert "data.jsonl" in text


@pytest.mark.parametrize(
    ("more", "name", "sentence"),
    [
        ("more.jsonl", "train.jsonl", "more.jsonl, whose do not; call it train-more.jsonl"),
        ("train-1.jsonl.gz", "train.jsonl", "train-1.jsonl.gz is damaged or cut off after line 3"),
        ("test.jsonl", "train.jsonl", "test.jsonl has no row; add rows, or remove it"),
    ],
)
def test_a_file_of_a_folder_that_would_be_left_out(
    more: str, name: str, sentence: str, paths: dict[str, str], tmp_path: Path
) -> None:
    lines = Path(paths["data"]).read_text()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(lines)
    cut_off = gzip.compress("".join(lines.splitlines(keepends=True)[:3]).encode())[:-8]
    (tmp_path / "data" / more).write_bytes({"gz": cut_off}.get(more[-2:], b""))
    assert sentence in sft(paths, tmp_path, f"--data_path {tmp_path / 'data'}")


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"train_batch_size": 1_000}, "train_batch_size is 1000, but "),
        ({"gradient_cliping": 5}, "DeepSpeed knows no entry gradient_cliping; did you mean gradient_clipping?"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler has no place here: the learning rate follows"),
        ({"zero_optimization": {"reduce_bucket_size": "x"}}, "zero_optimization.reduce_bucket_size is 'x'"),
    ],
)
def test_a_file_of_deepspeed_settings_is_checked_in_every_step(
    entries: dict[str, Any], sentence: str, paths: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(json.dumps(entries))
    for fails in (sft, ppo):
        text = fails(paths, tmp_path, f"--deepspeed_config {file} --data_path {tmp_path / 'not looked at yet'}")
        assert text.startswith(f"--deepspeed_config {file}: ")
        assert sentence in text
    file.write_text(json.dumps({"optimizer": {"params": {"lr": 7.0}}}))
    assert "optimizer.params.lr is 7.0, but --actor_learning_rate makes it" in ppo(
        paths, tmp_path, f"--deepspeed_config {file}"
    )


def test_tokenizer_without_eos(paths: dict[str, str], tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer().backend_tokenizer)
    make_causal_lm("llama", vocab_size=len(tokenizer)).config.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert "the tokenizer has no EOS token" in sft(paths, tmp_path, f"--model_name_or_path {tmp_path / 'model'}")


def test_every_prompt_longer_than_the_limit(paths: dict[str, str], tmp_path: Path) -> None:
    assert "fit --max_prompt_seq_len 1" in ppo(paths, tmp_path, "--max_prompt_seq_len 1")


def test_batch_sizes_that_do_not_divide(paths: dict[str, str], tmp_path: Path) -> None:
    text = ppo(paths, tmp_path, "--per_device_training_batch_size 3")
    assert "--per_device_training_batch_size 3 does not divide the 8 rows" in text


def test_a_language_model_as_critic(paths: dict[str, str], tmp_path: Path) -> None:
    text = ppo(paths, tmp_path, f"--critic_model_name_or_path {paths['sft']}")
    assert "no score head" in text
    assert "pass the step_<n> folder that step 2 wrote" in text


def test_different_tokenizers_of_actor_and_reward_model(paths: dict[str, str], tmp_path: Path) -> None:
    other = make_folders_with_vocabulary(tmp_path, vocab_size=290)
    text = ppo(paths, tmp_path, f"--actor_model_name_or_path {other}")
    assert "different tokenizers" in text


def make_folders_with_vocabulary(folder: Path, *, vocab_size: int) -> Path:
    tokenizer = make_tokenizer(vocab_size=vocab_size)
    make_causal_lm("llama", vocab_size=len(tokenizer)).save_pretrained(folder / "other")
    tokenizer.save_pretrained(folder / "other")
    return folder / "other"


def test_rows_longer_than_the_model(paths: dict[str, str], tmp_path: Path) -> None:
    assert "make rows of 129 tokens, but the model has 128 positions" in sft(paths, tmp_path, "--max_seq_len 129")


def test_output_folder_that_cannot_be_made(paths: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert "cannot be made" in sft(paths, tmp_path, "")


def test_output_folder_of_another_run(paths: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/metrics.jsonl").write_text('{"step": 1}\n')
    text = sft(paths, tmp_path, "")
    assert "already holds a run" in text
    assert "--overwrite_output_dir" in text
    assert (tmp_path / "out/metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.trains
def test_nan_loss_stops_before_the_weights_change(paths: dict[str, str], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(paths["sft"])
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    for file in Path(paths["sft"]).glob("token*"):
        (tmp_path / "broken" / file.name).write_bytes(file.read_bytes())
    job = Job(
        "sft", supervised_arguments(paths, "sft", tmp_path / "out", f"--model_name_or_path {tmp_path / 'broken'}")
    )
    with pytest.raises(TrainingFault, match=r"NaN or infinite at step 1 on rank 0.*try a lower learning rate"):
        run_job(job)


@pytest.mark.trains
def test_a_run_whose_logs_cannot_be_written_trains_and_saves_all_the_same(
    paths: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from dschat.config.steps import parse_sft_config
    from dschat.offline.sft import run_sft

    out = tmp_path / "out"
    (out / "metrics.jsonl").mkdir(parents=True)
    (tmp_path / "file").touch()
    extra = f"--overwrite_output_dir --enable_tensorboard --tensorboard_path {tmp_path}/file/tb --max_steps 3"
    run_sft(parse_sft_config(supervised_arguments(paths, "sft", out, extra)))
    printed = capfd.readouterr().out
    assert printed.count("cannot be written") == 2
    assert f"WARNING {out}/metrics.jsonl cannot be written (Is a directory); training goes on without" in printed
    assert f"WARNING {tmp_path}/file/tb cannot be written (Not a directory); training goes on without" in printed
    assert (out / "step_3/model.safetensors").is_file()
    assert (out / "state/step-3/manifest.json").is_file()


def run_main(main: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, main.name, *arguments], cwd=main.parent, env=environment, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # not wall time, which depends on what else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MOST_CPU_SECONDS
    return done


def test_entry_points_exit_with_status_2_and_one_line(paths: dict[str, str], tmp_path: Path) -> None:
    bad_flag = run_main(STEP3, *ppo_arguments(paths, tmp_path / "out", "--top_k 0"))
    assert bad_flag.returncode == 2
    assert bad_flag.stderr == "error: --top_k must be at least 1, got 0; the paper's commands use 128\n"
    bad_line = tmp_path / "data.jsonl"
    bad_line.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n[1]\n")
    arguments = supervised_arguments(paths, "sft", tmp_path / "out", f"--data_path {bad_line}")
    result = run_main(STEP1, *arguments)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "data.jsonl:2" in errors[0]
    assert "Traceback" not in result.stderr


def test_help_answers_without_loading_the_libraries() -> None:
    result = run_main(STEP3, "--help")
    assert result.returncode == 0
    assert "--cost_dim" in result.stdout
    assert "deepspeed" not in result.stderr.lower()
