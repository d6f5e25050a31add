"""What a judge is asked.

The criteria are the published ones: relevance, coherence, consistency and fluency for summaries (as in the DUC quality
questions), helpfulness for dialogue, and for WebGPT's questions what its annotators were asked. The wording is ours.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from dschat.answering.dataset_names import short_name, unknown_dataset

_SUMMARY = """\
You compare two summaries of the same text. Decide which one is better by these four criteria:

1. Relevance: it holds what is important in the text, and neither padding nor repetition.
2. Coherence: its sentences are well ordered and together make one account.
3. Consistency: it states only what the text supports; nothing is invented or changed.
4. Fluency: it is grammatical, well formed and easy to read.

The order in which the summaries are shown means nothing. A longer summary is not better for being longer.

<text>
{prompt}
</text>

<summary_A>
{first}
</summary_A>

<summary_B>
{second}
</summary_B>

Reply with one letter and nothing else: A if summary A is better, B if summary B is, E if they are equally good."""

_JSON_REPLY = """\
Reply with one JSON object and nothing else. It has two keys: "comparison", one sentence that compares the two and \
says why; and "choice", which is "A" or "B" for the better one, or "E" if they are equally good."""

_DIALOGUE = (
    """\
Below are a conversation between a person and an assistant, and two candidates for the assistant's next reply. Decide \
which one helps the person more: it answers what was asked, is correct, and is harmless. The order in which the \
replies are shown means nothing, and a longer reply is not better for being longer.

<conversation>
{prompt}
</conversation>

<reply_A>
{first}
</reply_A>

<reply_B>
{second}
</reply_B>

"""
    + _JSON_REPLY
)

_QUESTION = (
    """\
Below are a question and two answers to it. Decide which answer is better by these three criteria:

1. Accuracy: its claims are true, and it contradicts neither itself nor what is well known.
2. Usefulness: it answers this question, wholly and to the point.
3. Coherence: it is clearly written and easy to follow.

The order in which the answers are shown means nothing, and a longer answer is not better for being longer.

<question>
{prompt}
</question>

<answer_A>
{first}
</answer_A>

<answer_B>
{second}
</answer_B>

"""
    + _JSON_REPLY
)

EMPTY_ANSWER = "(this answer is empty)"


@dataclass(frozen=True)
class Criteria:
    """The question for one kind of dataset."""

    template: str
    """With the fields prompt, first and second."""
    reminder: str
    """What is said after a reply that cannot be read."""

    def question(self, *, prompt: str, first: str, second: str) -> str:
        """The judge's whole message, for two answers in the order in which they are shown."""
        # replaced in one pass: texts may hold braces, or the fields' own names
        fields = {"{prompt}": prompt.strip(), "{first}": _shown(first), "{second}": _shown(second)}
        return re.sub("|".join(map(re.escape, fields)), lambda match: fields[match.group()], self.template)

    @property
    def name(self) -> str:
        """Eight hexadecimal digits that stand for the wording."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:8]


_LETTER_REMINDER = "That was not a verdict. Reply with one letter: A, B or E."
_JSON_REMINDER = "That was not a verdict. " + _JSON_REPLY
_CRITERIA = {
    "summarize": Criteria(_SUMMARY, _LETTER_REMINDER),
    "hh-rlhf": Criteria(_DIALOGUE, _JSON_REMINDER),
    "webgpt": Criteria(_QUESTION, _JSON_REMINDER),
}
_CRITERIA["pydoc-tldr"] = _CRITERIA["summarize"]


def find_criteria(dataset: str) -> Criteria:
    """The question for a dataset, by its short or hub name; UserError for another one."""
    name = short_name(dataset)
    if name not in _CRITERIA:
        raise unknown_dataset(dataset, tuple(_CRITERIA))
    return _CRITERIA[name]


def _shown(answer: str) -> str:
    return answer.strip() or EMPTY_ANSWER
