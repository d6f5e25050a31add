"""The page, read as a file and opened in a real browser."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from dschat.errors import UserError
from dschat.judging.report import report_page
from dschat.judging.report_data import label_files, read_report
from tests.judging.browser import open_browser
from tests.judging.helpers import ROOT, run_program, write_results

PROGRAM = ROOT / "evaluation" / "report.py"
JUDGE = ROOT / "evaluation" / "gpt4-eval.py"
ROWS = 60
ODD = '</script><script>document.title = "broken"</script><img src=x onerror=alert(1)> {{DATA}} \u2028 é'


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models' results and the reward model's verdicts on two of the pairs."""
    folder = tmp_path_factory.mktemp("report")
    draw = random.Random(0)
    results = []
    for number, model in enumerate(("sft", "kl", "wasserstein")):
        answers = ["word " * draw.randint(1, 30) + f"{model} {row}" for row in range(ROWS)]
        answers[3], answers[4] = ODD, ""
        rewards: list[float | None] = [draw.gauss(number, 1) for _ in range(ROWS)]
        rewards[5] = None
        results.append(write_results(folder / f"{model}.jsonl", answers, rewards=rewards, prompt="post <b>{row}</b>"))
    verdicts = []
    for other in results[1:]:
        output = folder / f"sft-v.s.-{other.stem}.jsonl"
        words = ["--model_name_a", results[0], "--model_name_b", other, "--dataset", "summarize", "--output", output]
        done = run_program(JUDGE, *words, "--judge", "reward-model", "--num_sample", 40)
        assert done.returncode == 0, done.stderr
        verdicts.append(output)
    return [*results, *verdicts]


def outcomes(path: Path) -> dict[str, int]:
    """Winners of a verdict file, counted here."""
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    return {name: sum(row["winner"] == name for row in rows) for name in ("A", "B", "Tie")}


def test_page_shows_every_chart_and_its_filter_works(files, tmp_path):
    page = tmp_path / "report.html"
    done = run_program(PROGRAM, *files, "--output", page)
    assert done.returncode == 0, done.stderr
    expected = outcomes(files[3])
    with open_browser() as browser:
        browser.open(page)
        assert browser.run("return document.title") == "Model comparison"
        charts = browser.run(
            "return [...document.querySelectorAll('figure')].map(f => [f.id, f.querySelector('svg').clientWidth, "
            "f.querySelectorAll('polyline, circle').length])"
        )
        assert [chart[0] for chart in charts] == ["rewards", "lengths", "reward-length"]
        assert all(width > 200 for _, width, _ in charts)
        assert [marks for *_, marks in charts] == [3, 3, 3 * (ROWS - 1)]
        assert browser.run("return document.querySelectorAll('.matrix .rate').length") == 4
        assert "no independent verdict" in browser.run("return document.querySelector('.note').textContent")
        count = "return document.getElementById('count').textContent"
        assert browser.run(count) == f"1 to 25 of {ROWS} prompts"
        choose = (
            "for (const [id, value] of {}) {{ const f = document.getElementById(id); f.value = value; "
            "f.dispatchEvent(new Event(id === 'search' ? 'input' : 'change')); }}"
        )
        for outcome, wanted in expected.items():
            browser.run(choose.format(json.dumps([["contest", "0"], ["outcome", outcome]])))
            shown = browser.run(count)
            assert shown == "no prompt matches" if wanted == 0 else shown.endswith(f" of {wanted} prompts")
        browser.run(choose.format(json.dumps([["contest", "0"], ["outcome", "B"]])))
        marked = browser.run(
            "return [...document.querySelectorAll('.answer.won')].map(a => a.querySelector('.head span').textContent)"
        )
        assert marked == ["kl"] * min(expected["B"], 25)
        browser.run(choose.format(json.dumps([["contest", ""], ["search", "<B>17</b>"]])))
        assert browser.run(count) == "1 to 1 of 1 prompts"
        cards = browser.run("return [...document.querySelectorAll('.answer pre')].map(p => p.textContent)")
        assert [card.split()[-2:] for card in cards] == [[name, "17"] for name in ("sft", "kl", "wasserstein")]
        browser.run(choose.format(json.dumps([["search", "onerror=alert"]])))
        assert ODD.strip() in browser.run("return document.querySelector('.answer pre').textContent")
        assert browser.run("return [...document.images].length") == 0
        browser.run(choose.format(json.dumps([["search", ""]])))
        browser.run("document.getElementById('next').click()")
        assert browser.run(count) == f"26 to 50 of {ROWS} prompts"
        assert browser.console_errors() == []
        picture = browser.screenshot(Path(os.environ.get("REPORT_SCREENSHOT", tmp_path / "page.png")))
    pixels = matplotlib.image.imread(picture)[..., :3]
    colors = np.unique((pixels * 15).astype(int).reshape(-1, 3), axis=0)
    assert pixels.shape[0] > 800 and pixels.std() > 0.05 and len(colors) > 50


def test_page_holds_no_address_but_its_own(files):
    page = report_page(read_report(files[:2]), title="a < b")
    # the odd answer of the fixture is data, in which < is escaped
    assert not re.search(r"""(src|href|@import|url\()\s*=?\s*["'(]?\s*(https?:)?//""", page)
    assert page.count("<script") == 2 and "a &lt; b" in page
    assert "default-src 'none'" in page


def test_models_are_named_by_file_and_by_folder_where_names_repeat(tmp_path):
    one, two, sample = tmp_path / "x" / "sft.jsonl", tmp_path / "y" / "sft.jsonl", tmp_path / "x" / "sft-sampled.jsonl"
    kl = tmp_path / "kl.jsonl"
    assert label_files([one, sample, kl]) == {one: "sft", sample: "sft", kl: "kl"}
    assert label_files([one, two, kl]) == {one: "x/sft", two: "y/sft", kl: "kl"}


def test_page_says_which_model_wrote_the_answers_where_a_file_beside_them_says_so(tmp_path):
    a, b = write_results(tmp_path / "A.jsonl", ["x"]), write_results(tmp_path / "B-sampled.jsonl", ["y"])
    assert "made by" not in report_page(read_report([a, b]), title="t")
    settings = {"model": "out/<actor>", "ref_scores": False}
    for name in ("A.jsonl", "B.jsonl"):  # a sample is made by what made the whole
        (tmp_path / f"{name}.run.json").write_text(json.dumps({"settings": settings}))
    page = report_page(read_report([a, b]), title="t")
    assert page.count("<td>out/&lt;actor&gt;</td>") == 2 and "<th>made by</th>" in page


def test_verdict_files_alone_are_enough_and_matrix_cells_mirror(files):
    data = read_report(files[3:])
    assert data.models == ["sft", "kl", "wasserstein"]
    counted, summary = outcomes(files[3]), data.comparisons[0].summary
    assert (summary.wins, summary.losses, summary.ties) == (counted["A"], counted["B"], counted["Tie"])
    page = report_page(data, title="t")
    rates = [float(rate) for rate in re.findall(r"--rate:([\d.]+)", page)]
    assert rates[0] + rates[2] == pytest.approx(1, abs=0.002) and rates[1] + rates[3] == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize(
    "odd",
    [
        {"prompt": ["p"]}, {"a.jsonl": 5}, {"key": ["k"]}, {"replies": [5]}, {"replies": None}, {"comment": {"a": 1}},
        {"problem": 5}, {"model_a": "a\0b"}, {"a.jsonl_reward_score": 10**400}, {"row": "1e400"}, {"winner": "C"},
        {"status": "lost"}, {"status": "failed"}, {"winner": None}, {"requests": None},
    ],
    ids=str,
)  # fmt: skip
def test_rows_that_are_no_verdict_are_one_sentence(odd, tmp_path):
    row = {
        "prompt": "p", "a.jsonl": "x", "b.jsonl": "y", "a.jsonl_reward_score": 0.0, "b.jsonl_reward_score": 0.0,
        "winner": "A", "status": "judged", "row": 0, "first": "A", "order": "fixed", "model_a": "a.jsonl",
        "model_b": "b.jsonl", "dataset": "summarize", "judge": "j", "template": "", "replies": [], "problem": None,
        "requests": 1, "key": "k",
    }  # fmt: skip
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert read_report([path]).models == ["a", "b"]
    path.write_text(json.dumps(row | odd).replace('"1e400"', "1e400") + "\n")
    with pytest.raises(UserError, match="row 1 is no verdict"):
        read_report([path])


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no such file"), ("", "holds no row"), ('{"x": 1}\n', "has no 'prompt'"), ("{", "not JSON")],
)
def test_bad_input_is_one_sentence_and_an_earlier_page_stays(tmp_path, content, message):
    path, page = tmp_path / "a.jsonl", tmp_path / "page.html"
    page.write_text("an earlier page")
    if content is not None:
        path.write_text(content)
    done = run_program(PROGRAM, path, "--output", page)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert page.read_text() == "an earlier page"
