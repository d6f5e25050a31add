"""Shows what step 1 changed: greedy answers of the model before and after it, side by side."""

from dschat.errors import run_guarded
from dschat.programs.prompt_eval import main

if __name__ == "__main__":
    run_guarded(main)
