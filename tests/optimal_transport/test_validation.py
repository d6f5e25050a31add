"""Bad input to token_potentials gets one clear sentence that names the flag or the position."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from dschat.optimal_transport import TokenGeometry, token_potentials
from tests.optimal_transport.problems import random_problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"epsilon": 0.0}, "epsilon must be positive and finite, got 0.0"),
        ({"epsilon": -1.0}, "epsilon must be positive"),
        ({"epsilon": math.nan}, "epsilon must be positive"),
        ({"max_iter": 0}, "max_iter must be at least 1, got 0"),
        ({"tol": -1e-3}, "tol must be at least 0"),
        ({"tol": math.nan}, "tol must be at least 0"),
        ({"transport": "exact"}, "transport must be 'truncated' or 'capped', got 'exact'"),
        ({"support": "global"}, "support must be 'position' or 'batch', got 'global'"),
        ({"debias": True}, "debias needs capped transport"),
        ({"normalize": True, "transport": "capped"}, "normalize needs truncated transport"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], message: str) -> None:
    problem = random_problem()
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=5)
    with pytest.raises(ValueError, match=message):
        token_potentials(*problem[:3], geometry, **settings)


@pytest.mark.parametrize("support", ["position", "batch"])
@pytest.mark.parametrize("name", ["policy", "reference"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_logits_name_the_model_and_the_first_position(name: str, bad: float, support: str) -> None:
    problem = random_problem(positions=9)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=5)
    logits = {"policy": problem.policy_logits.clone(), "reference": problem.reference_logits.clone()}
    logits[name][4, 71] = bad
    logits[name][7, 0] = bad
    with pytest.raises(ValueError, match=f"the {name} logits hold NaN or inf at position 4 of 9"):
        token_potentials(logits["policy"], logits["reference"], problem.tokens, geometry, top_k=3, support=support)


@pytest.mark.parametrize("token", [-100, 83])
def test_tokens_outside_the_vocabulary_are_named(token: int) -> None:
    problem = random_problem(positions=9)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=5)
    tokens = problem.tokens.clone()
    tokens[2] = token
    with pytest.raises(ValueError, match=f"token {token} at position 2 of 9 is outside the vocabulary of 83"):
        token_potentials(*problem[:2], tokens, geometry, top_k=3)


def test_shapes_that_do_not_fit() -> None:
    problem = random_problem()
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=5)
    with pytest.raises(ValueError, match="slice padded vocabulary columns off"):
        token_potentials(*(torch.nn.functional.pad(x, (0, 5)) for x in problem[:2]), problem.tokens, geometry)
    with pytest.raises(ValueError, match="reference logits must have shape"):
        token_potentials(problem.policy_logits, problem.reference_logits[:-1], problem.tokens, geometry)
    with pytest.raises(ValueError, match="tokens must be"):
        token_potentials(*problem[:2], problem.tokens.float(), geometry)
    with pytest.raises(ValueError, match="floating point"):
        token_potentials(problem.policy_logits.long(), problem.reference_logits, problem.tokens, geometry)


def test_import_needs_neither_deepspeed_nor_transformers() -> None:
    code = (
        "import sys, dschat.optimal_transport;"
        "loaded = {'deepspeed', 'transformers', 'datasets'} & set(sys.modules);"
        "sys.exit(f'imports {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
