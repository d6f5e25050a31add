"""Has a judge compare two models' answers. `python evaluation/gpt4-eval.py --help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.judge import main

if __name__ == "__main__":
    run_guarded(main)
