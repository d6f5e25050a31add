"""Talk to a trained model in the terminal: `python chat.py --path <model folder>`; `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.chat import main

if __name__ == "__main__":
    run_guarded(main)
