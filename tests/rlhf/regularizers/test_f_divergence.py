"""f-divergence estimates: published values, exact divergences, extreme log-ratios."""

from __future__ import annotations

import math

import pytest
import torch

from dschat.rlhf.regularizers.f_divergence import f_divergence_penalty

RATIOS = [-2.0, -0.5, 0.0, 0.5, 2.0]
# Computed from the published formulas, to six decimals.
PUBLISHED = {
    ("rkl", False): RATIOS,
    ("rkl", True): [4.389056, 0.148721, 0, 0.106531, 1.135335],
    ("fkl", False): [14.778112, 0.824361, 0, -0.303265, -0.270671],
    ("fkl", True): [8.389056, 0.175639, 0, 0.090204, 0.593994],
    ("js", False): [2.750044, 0.080256, 0, 0.048678, 0.372178],
    ("alpha", False): [5.904985, 0.161341, 0, 0.097858, 0.799153],
    ("tv", False): [3.194528, 0.324361, 0, 0.196735, 0.432332],
    ("chi", False): [5.524391, 0.255252, 0, 0.255252, 5.524391],
}
FORMS = list(PUBLISHED)


@pytest.mark.parametrize(("kind", "low_variance"), PUBLISHED)
def test_values_equal_the_published_ones(kind: str, low_variance: bool) -> None:
    values = f_divergence_penalty(torch.tensor(RATIOS), kind=kind, low_variance=low_variance)
    torch.testing.assert_close(values, torch.tensor(PUBLISHED[kind, low_variance]).float(), atol=2e-6, rtol=1e-6)


def exact_divergence(kind: str, p: torch.Tensor, q: torch.Tensor, alpha: float) -> float:
    """The divergence itself, from its textbook definition, in float64."""
    mean = (p + q) / 2
    match kind:
        case "rkl":
            return (p * (p / q).log()).sum().item()
        case "fkl":
            return (q * (q / p).log()).sum().item()
        case "js":
            return ((p * (p / mean).log()).sum() + (q * (q / mean).log()).sum()).item()
        case "alpha":
            return ((1 - (p ** (1 - alpha) * q**alpha).sum()) / (alpha * (1 - alpha))).item()
        case "tv":
            return (p - q).abs().sum().item() / 2
        case "chi":
            return ((p - q).square() / q).sum().item()
    raise ValueError(kind)


@pytest.mark.parametrize(("kind", "low_variance"), FORMS)
@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9])
def test_mean_under_the_policy_is_the_divergence(kind: str, low_variance: bool, alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(17, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(2))
    values = f_divergence_penalty((p / q).log(), kind=kind, alpha=alpha, low_variance=low_variance).double()
    assert (p * values).sum().item() == pytest.approx(exact_divergence(kind, p, q, alpha), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("kind", "low_variance"), FORMS)
@pytest.mark.parametrize("alpha", [1e-3, 0.5, 0.999])
def test_no_log_ratio_gives_nan(kind: str, low_variance: bool, alpha: float) -> None:
    ratios = torch.cat([torch.linspace(-200, 200, 2001), torch.tensor([-1e4, -88.8, -1e-8, 0.0, 1e-8, 88.8, 1e4])])
    values = f_divergence_penalty(ratios, kind=kind, alpha=alpha, low_variance=low_variance)
    assert not values.isnan().any()
    if kind not in ("rkl", "fkl") or low_variance:
        assert values.min() >= -1e-4  # these estimates are never negative, up to float32's rounding
    if kind != "rkl":
        assert values[0] == math.inf


def test_half_precision_input_is_computed_in_float32() -> None:
    values = f_divergence_penalty(torch.tensor([-15.0, 3.0], dtype=torch.float16), kind="chi")
    assert values.dtype == torch.float32
    assert values.isfinite().all()


@pytest.mark.parametrize("kind", ["js", "alpha", "tv", "chi"])
def test_low_variance_is_refused_where_there_is_none(kind: str) -> None:
    with pytest.raises(ValueError, match="the low-variance form exists for rkl and fkl"):
        f_divergence_penalty(torch.zeros(2), kind=kind, low_variance=True)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        f_divergence_penalty(torch.zeros(2), kind="alpha", alpha=alpha)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown divergence 'kld'"):
        f_divergence_penalty(torch.zeros(2), kind="kld")
