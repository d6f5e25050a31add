"""The measures of the comparison match plain loops."""

from __future__ import annotations

import pytest
import torch

from compare_regularizers.measures import exact_kl, top_token_distance


def test_exact_kl_and_top_distance_match_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(3, 11, generator=generator), torch.randn(3, 11, generator=generator)
    embeddings = torch.randn(11, 5, generator=generator)

    kl = exact_kl(policy, reference)
    spread = top_token_distance(policy, embeddings, count=4)

    for row in range(3):
        p, q = policy[row].double().softmax(0), reference[row].double().softmax(0)
        assert float(kl[row]) == pytest.approx(float(sum(p * (p / q).log())), rel=1e-6)
        top = policy[row].argsort(descending=True)[:4].tolist()
        pairs = [(embeddings[a] - embeddings[b]).norm().item() for a in top for b in top if a < b]
        assert float(spread[row]) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
