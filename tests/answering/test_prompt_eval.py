"""Answers of two models to six questions (`answering/prompt_eval.py`), as a user starts the program."""

from __future__ import annotations

from tests.judging.helpers import ROOT, run_program

PROMPT_EVAL = ROOT / "applications/DeepSpeed-Chat/training/step1_supervised_finetuning/prompt_eval.py"


def test_prompt_eval_shows_both_models_answers_to_six_questions(models):
    words = ["--model_name_or_path_baseline", models / "base", "--max_new_tokens", 4, "--language", "Japanese"]
    done = run_program(PROMPT_EVAL, *words, "--model_name_or_path_finetune", models / "run" / "step-7" / "actor")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("baseline") == done.stdout.count("finetuned") == done.stdout.count("Human:") == 6
