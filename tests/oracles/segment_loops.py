"""Macro actions written out token by token in Python, for comparison with the vectorised package."""

from __future__ import annotations

from tests.oracles.ppo_loops import discounted_advantages

Node = int | list["Node"]


def fixed_starts(count: int, ngram: int) -> list[int]:
    """Segment starts of an answer of `count` tokens, a new one after every `ngram`."""
    starts, run = [], 0
    for t in range(count):
        if run == 0:
            starts.append(t)
        run = (run + 1) % ngram
    return starts


def randomized_starts(count: int, lengths: list[int]) -> list[int]:
    """A new segment when the current length is used up; the remainder is one segment."""
    waiting = list(lengths)
    starts, left = [], 0.0
    for t in range(count):
        if left == 0:
            starts.append(t)
            left = waiting.pop(0) if waiting else float("inf")
        left -= 1
    return starts


def perplexity_starts(perplexities: list[float]) -> list[int]:
    """A new segment where a token surprises the reference more than the one before it."""
    starts = []
    for t in range(len(perplexities)):
        if t == 0 or perplexities[t] > perplexities[t - 1]:
            starts.append(t)
    return starts


def phrase_segments(sentences: list[Node], cutoff: int) -> list[int]:
    """Token counts of the segments of parsed sentences; a node is a number of tokens (a word) or a list of nodes.

    From each root down: a node with one word joins the segment before it, one of fewer than `cutoff` tokens is a
    segment, any other is taken apart. A sentence starts a segment.
    """
    segments: list[int] = []
    for sentence in sentences:
        started = len(segments)

        def walk(node: Node, started: int = started) -> None:
            words = leaves(node)
            if len(words) == 1 and len(segments) > started:
                segments[-1] += words[0]
            elif len(words) == 1 or sum(words) < cutoff:
                segments.append(sum(words))
            else:
                for child in node if isinstance(node, list) else ():
                    walk(child)

        walk(sentence)
    return segments


def leaves(node: Node) -> list[int]:
    """Token counts of a node's words."""
    return [node] if isinstance(node, int) else [count for child in node for count in leaves(child)]


def segment_row(
    rewards: list[float], values: list[float], starts: list[int], *, value_function: str, gamma: float, lam: float
) -> tuple[list[float], list[float]]:
    """Advantages and returns of each token of one answer."""
    bounds = [*starts, len(rewards)]
    segments = [range(bounds[i], bounds[i + 1]) for i in range(len(starts))]
    segment_rewards, segment_values = [], []
    for segment in segments:
        segment_rewards.append(sum(rewards[t] for t in segment))
        inside = [values[t] for t in segment]
        if value_function == "equal":
            value = sum(inside) / len(inside)
        elif value_function == "unit":
            value = inside[-1]
        else:
            shares = [1 / (i + 1) for i in range(len(inside))]
            value = sum(s * v for s, v in zip(shares, inside, strict=True)) / sum(shares)
        segment_values.append(value)
    advantages = discounted_advantages(segment_rewards, segment_values, gamma=gamma, lam=lam)
    of_tokens = [(a, a + v) for a, v, s in zip(advantages, segment_values, segments, strict=True) for _ in s]
    return [a for a, _ in of_tokens], [r for _, r in of_tokens]
