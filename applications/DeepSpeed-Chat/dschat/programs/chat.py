"""Talk to a trained model in the terminal: `python chat.py --path <model folder>`; `--help` lists the flags."""

from dschat.answering.chat import main
from dschat.errors import run_guarded

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)
