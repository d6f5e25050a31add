"""The truncated vocabulary against sets of Python integers."""

from __future__ import annotations

import torch

from dschat.optimal_transport.support import build_support

VOCABULARY, POSITIONS, TOP_K = 101, 13, 7


def make_logits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    reference = 3 * torch.randn(POSITIONS, VOCABULARY, generator=generator)
    policy = reference + 0.3 * torch.randn(POSITIONS, VOCABULARY, generator=generator)
    return policy, reference, torch.randint(VOCABULARY, (POSITIONS,), generator=generator)


def test_support_is_the_union_of_both_top_k_and_the_sampled_token() -> None:
    policy, reference, tokens = make_logits()
    support = build_support(policy, reference, tokens, top_k=TOP_K, kind="position")
    for n in range(POSITIONS):
        expected = {*policy[n].topk(TOP_K).indices.tolist(), *reference[n].topk(TOP_K).indices.tolist(), int(tokens[n])}
        assert support.ids[n][support.is_bin[n, :-1]].tolist() == sorted(expected)
        assert support.ids[n, support.token_bin[n]] == tokens[n]
        mass = sum(policy[n].double().softmax(-1)[token] for token in expected)
        torch.testing.assert_close(support.policy[n, -1].exp(), 1 - mass, atol=1e-7, rtol=0)


def test_a_part_drops_the_bins_that_are_empty_in_all_of_it_and_nothing_else() -> None:
    support = build_support(*make_logits(), top_k=TOP_K, kind="position")
    part = support.part(slice(2, 6))
    assert TOP_K < part.ids.shape[1] < support.ids.shape[1]
    assert part.is_bin[:, :-1].any(dim=0).all()
    for one, whole in ((part.policy, support.policy), (part.reference, support.reference)):
        torch.testing.assert_close(one.exp().sum(dim=1), torch.ones(4, dtype=torch.float64))
        assert torch.equal(one[:, -1], whole[2:6, -1])
    assert torch.equal(part.ids.gather(1, part.token_bin[:, None]), support.ids[2:6].gather(1, part.token_bin[:, None]))
