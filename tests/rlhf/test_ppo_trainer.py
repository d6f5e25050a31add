"""One PPO step on real engines against plain models and Python loops, row by row, without any padding."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dschat.config.regularizers import DivergenceConfig
from dschat.config.steps import PPOConfig, parse_ppo_config
from dschat.data.batches import PromptBatch
from dschat.data.plain_text import TextBlocks
from dschat.errors import TrainingFault
from dschat.generation import Generator
from dschat.models.checked import check_model
from dschat.rlhf import ppo_trainer
from dschat.rlhf.experience import Experience, Rollout
from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer
from dschat.rlhf.regularizers import build_regularizer
from dschat.rlhf.reward_sources import RewardSource, SequenceScores, build_reward_source
from dschat.rlhf.rlhf_engine import Checkpoints, DeepSpeedRLHFEngine
from tests.oracles.ppo_loops import policy_term, ppo_row, value_term
from toys.generators import FixedAnswers
from toys.jobs import make_folders, ppo_arguments

TOLERANCE = 2e-4  # float32 engines against float64 models
BETA, CLIP = 0.3, 1.5
CPU = torch.device("cpu")
PROMPTS = [[2, 50, 51, 52, 53], [2, 60], [2, 70, 71], [2, 80, 81, 82]]
EOS = 3
ANSWERS = [[90, 91, EOS], [92, 93, 94, 95, 96], [EOS], [97, EOS]]  # the third says nothing


class Case:
    """Trainer, prompts with fixed answers, and what the plain models say about each row alone."""

    text: TextBlocks | None = None

    def __init__(self, folder: Path, pad: Literal["pad", "eos"]) -> None:
        paths = make_folders(folder, pad=pad)
        checkpoints = Checkpoints(*(check_model(name, paths[name]) for name in ("sft", "reward")))
        self.tokenizer = checkpoints.actor.tokenizer
        # another actor than the reference, so that the penalty is not zero
        self.config = self._config(paths, folder)
        self.engine = DeepSpeedRLHFEngine(self.config, checkpoints, total_updates=5, device=CPU)
        with torch.no_grad():
            for parameter in self.engine.reference.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        self.policy = AutoModelForCausalLM.from_pretrained(paths["sft"]).double().eval()
        self.scorer = AutoModelForSequenceClassification.from_pretrained(paths["reward"]).double().eval()
        self.reference = AutoModelForCausalLM.from_pretrained(paths["sft"]).eval()
        self.reference.load_state_dict(self.engine.reference.state_dict())
        self.reference.double()

    @staticmethod
    def _config(paths: dict[str, str], folder: Path) -> PPOConfig:
        extra = (
            f"--kl_ctl {BETA} --reward_clip {CLIP} --gamma 0.98 --lam 0.9 --per_device_generation_batch_size 4 "
            "--per_device_training_batch_size 2 --gradient_accumulation_steps 2 --actor_zero_stage 1"
        )
        return parse_ppo_config(ppo_arguments(paths, folder / "out", extra), regularizer=DivergenceConfig)

    def prompts(self) -> PromptBatch:
        width, pad = max(map(len, PROMPTS)), int(self.tokenizer.pad_token_id)
        ids = [[pad] * (width - len(row)) + row for row in PROMPTS]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in PROMPTS]
        return PromptBatch(torch.tensor(ids), torch.tensor(mask), tuple({"id": i} for i in range(len(PROMPTS))))

    def answer(self, prompts: PromptBatch) -> Tensor:
        width, pad = max(map(len, ANSWERS)), int(self.tokenizer.pad_token_id)
        return torch.tensor([row + [pad] * (width - len(row)) for row in ANSWERS])

    def trainer(
        self, reward_source: RewardSource | None = None, *, generator: Generator | None = None
    ) -> DeepSpeedPPOTrainer:
        return DeepSpeedPPOTrainer(
            self.engine, self.config,
            build_regularizer(
                self.config.regularizer, reference_embeddings=self.engine.reference_embeddings, seed=0,
            ),
            reward_source or build_reward_source(self.config.reward, reward_model=self.engine.reward),
            self.tokenizer, generator or FixedAnswers(self.answer), device=CPU, text=self.text,
        )  # fmt: skip

    @torch.no_grad()
    def row(self, number: int) -> dict[str, Any]:
        """Everything about one row, from its real tokens alone, in float64."""
        prompt, answer = PROMPTS[number], ANSWERS[number]
        ids = torch.tensor([prompt + answer])
        start, n = len(prompt), len(answer)
        chosen = ids[:, 1:, None]
        log_probs, reference = (
            m(input_ids=ids).logits.log_softmax(-1)[:, :-1].gather(-1, chosen)[0, start - 1 :, 0]
            for m in (self.policy, self.reference)
        )
        scores = self.scorer.score(self.scorer.model(input_ids=ids).last_hidden_state)[0, :, 0]
        values = scores[start - 1 : start - 1 + n]
        result = ppo_row(
            (log_probs - reference).tolist(), scores[-1].item(), values.tolist(), beta=BETA, clip=CLIP, gamma=0.98,
            lam=0.9,
        )  # fmt: skip
        return {"log_probs": log_probs, "values": values, "score": scores[-1].item(), "result": result, "length": n}


@pytest.fixture(scope="module", params=["pad", "eos"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> Case:
    return Case(tmp_path_factory.mktemp(f"trainer-{request.param}"), request.param)


def check_rows(experience: Experience, case: Case) -> tuple[float, float, int]:
    """Compare every row with the oracle; returns the summed losses before the first update and the token count."""
    policy = value = 0.0
    tokens = 0
    for number in range(len(PROMPTS)):
        if number == 2:
            assert experience.response_mask[number].sum() == 0
            continue
        expected = case.row(number)
        n = expected["length"]
        tokens += n
        assert experience.response_mask[number].tolist() == [t < n for t in range(5)]
        for ours, theirs in (
            (experience.log_probs, expected["log_probs"]),
            (experience.values, expected["values"]),
            (experience.advantages, torch.tensor(expected["result"].advantages)),
            (experience.returns, torch.tensor(expected["result"].returns)),
        ):
            torch.testing.assert_close(ours[number, :n].double(), theirs.double(), atol=TOLERANCE, rtol=TOLERANCE)
        for t in range(n):
            log_prob, v = expected["log_probs"][t].item(), expected["values"][t].item()
            policy += policy_term(log_prob, log_prob, expected["result"].advantages[t], 0.2)
            value += value_term(v, v, expected["result"].returns[t], 0.2)
    return policy, value, tokens


def test_experience_and_losses_equal_plain_models_and_loops(case: Case) -> None:
    trainer = case.trainer()
    made = trainer.generate_experience(case.prompts(), step=1)
    answers = made.answers
    policy, value, tokens = check_rows(made.experience, case)
    metrics = (made.sums + trainer.train_rlhf([made.experience], step=1).sums).means(CPU)
    assert tokens == 10
    assert metrics["actor_loss"] == pytest.approx(policy / tokens, rel=TOLERANCE, abs=TOLERANCE)
    assert metrics["critic_loss"] == pytest.approx(value / tokens, rel=TOLERANCE, abs=TOLERANCE)
    scores = [case.row(i)["score"] for i in (0, 1, 3)]
    assert metrics["reward"] == pytest.approx(sum(scores) / 3, rel=TOLERANCE)
    assert [answers.scores[i] for i in (0, 1, 3)] == pytest.approx(scores, rel=TOLERANCE)
    assert metrics["usable_share"] == 0.75
    assert metrics["response_length"] == pytest.approx(tokens / 3)
    assert answers.answers[2] == ""


def test_a_batch_without_a_usable_answer_changes_nothing(case: Case) -> None:
    trainer = case.trainer(generator=FixedAnswers(lambda prompts: torch.full((4, 2), EOS)))
    before = [p.detach().clone() for p in case.engine.actor.module.parameters()]
    made = trainer.generate_experience(case.prompts(), step=1)
    metrics = (made.sums + trainer.train_rlhf([made.experience], step=2).sums).means(CPU)
    assert metrics["usable_share"] == 0.0
    assert metrics["actor_grad_norm"] == 0.0
    # AdamW still moves along its momentum, by much less than a step with a gradient
    change = max((p - q).abs().max().item() for p, q in zip(before, case.engine.actor.module.parameters(), strict=True))
    assert change < 1e-2


def test_the_generator_takes_over_weights_that_have_changed_and_no_others(case: Case) -> None:
    generator = FixedAnswers(case.answer)
    trainer = case.trainer(generator=generator)
    counts = []
    for _ in range(2):
        for _ in range(2):
            made = trainer.generate_experience(case.prompts(), step=1)
            counts.append(generator.refreshed)
        trainer.train_rlhf([made.experience], step=1)
    trainer.load_state_dict(trainer.state_dict())
    trainer.generate_experience(case.prompts(), step=1)
    assert [*counts, generator.refreshed] == [1, 1, 2, 2, 3]


class Verdicts(RewardSource):
    """Fixed scores, and when they were asked for."""

    def __init__(self, values: list[float], events: list[str]) -> None:
        self.values = values
        self.events = events

    def begin(self, rollout: Rollout) -> None:
        self.events.append("begin")

    def score(self, rollout: Rollout) -> SequenceScores:
        self.events.append("score")
        values = torch.tensor(self.values)
        metrics = {"luck": torch.tensor([1.0, 2.0, math.nan, 6.0]), "none": values * math.nan}
        return SequenceScores(values, metrics, unscored=values.isnan())


def test_an_answer_without_a_score_is_dropped_with_all_that_belongs_to_it(case: Case) -> None:
    def run(values: list[float]) -> tuple[Experience, dict[str, float], list[float]]:
        made = case.trainer(Verdicts(values, [])).generate_experience(case.prompts(), step=1)
        return made.experience, made.sums.means(CPU), made.answers.scores

    whole, _, _ = run([0.5, -0.5, 9.0, 1.0])
    dropped, metrics, shown = run([0.5, math.nan, 9.0, 1.0])
    assert dropped.response_mask.any(dim=-1).tolist() == [True, False, False, True]
    for row in (0, 3):
        for name in ("response_mask", "log_probs", "values", "advantages", "returns"):
            assert torch.equal(getattr(dropped, name)[row], getattr(whole, name)[row])
    assert dropped.advantages[1].abs().sum() == dropped.returns[1].abs().sum() == 0
    assert metrics["reward"] == pytest.approx(0.75)
    assert metrics["usable_share"] == 0.5
    assert metrics["response_length"] == 2.5
    # a diagnostic is a mean over the answers that have one, dropped or not
    assert metrics["luck"] == pytest.approx(3.0)
    assert math.isnan(metrics["none"])
    assert math.isnan(shown[1])


def test_a_step_of_which_no_answer_has_a_score_stays_finite(case: Case) -> None:
    trainer = case.trainer(Verdicts([math.nan] * 4, []))
    made = trainer.generate_experience(case.prompts(), step=1)
    metrics = (made.sums + trainer.train_rlhf([made.experience], step=1).sums).means(CPU)
    assert metrics["usable_share"] == 0.0
    assert metrics["actor_grad_norm"] == 0.0
    assert all(parameter.isfinite().all() for parameter in case.engine.actor.module.parameters())


def test_scoring_forwards_run_while_the_reward_source_works(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    forwards = ppo_trainer.model_outputs
    monkeypatch.setattr(ppo_trainer, "model_outputs", lambda *a, **k: (events.append("forwards"), forwards(*a, **k))[1])
    case.trainer(Verdicts([0.0] * 4, events)).generate_experience(case.prompts(), step=1)
    assert events == ["begin", "forwards", "score"]


def test_broken_logits_stop_the_step_and_are_named(case: Case) -> None:
    weight = case.engine.reference.get_input_embeddings().weight
    row = weight[90].detach().clone()
    with torch.no_grad():
        weight[90] = torch.nan
    with pytest.raises(
        TrainingFault, match="log-probabilities of the answers became NaN or infinite at step 7 on rank 0"
    ):
        case.trainer().generate_experience(case.prompts(), step=7)
    with torch.no_grad():
        weight[90] = row
