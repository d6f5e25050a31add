"""Shows what step 1 changed: greedy answers of the model before and after it, side by side."""

from dschat.answering.prompt_eval import main
from dschat.errors import run_guarded

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)
