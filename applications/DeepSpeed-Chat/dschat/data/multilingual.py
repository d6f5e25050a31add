"""Chinese and Japanese question answering, all in the same Human / Assistant form."""

from __future__ import annotations

from dschat.data.base import ASSISTANT, HUMAN, RawDataset


class ZhihuKol(RawDataset):
    """Chinese questions and answers; the hub has a train split only."""

    name = "wangrui6_Zhihu_KOL"
    hub_name = "wangrui6/Zhihu-KOL"
    prompt_columns = ("INSTRUCTION",)
    chosen_columns = ("RESPONSE",)
    before_prompt, after_prompt, before_answer = HUMAN, ASSISTANT, " "


class MiraclZh(RawDataset):
    """Chinese queries; the answers are the first relevant and the first irrelevant passage."""

    name = "Cohere_miracl_zh_queries_22_12"
    hub_name = "Cohere/miracl-zh-queries-22-12"
    prompt_columns = ("query",)
    chosen_columns = ("positive_passages[].text",)
    rejected_columns = ("negative_passages[].text",)
    before_prompt, after_prompt, before_answer = HUMAN, ASSISTANT, " "
    evaluation_splits = ("validation", "test")


class MiraclJa(MiraclZh):
    """The same in Japanese."""

    name = "Cohere_miracl_ja_queries_22_12"
    hub_name = "Cohere/miracl-ja-queries-22-12"


class Hc3Chinese(RawDataset):
    """Chinese questions with the first answer of a person; the hub has a train split only."""

    name = "Hello_SimpleAI_HC3_Chinese"
    hub_name = "Hello-SimpleAI/HC3-Chinese"
    prompt_columns = ("question",)
    chosen_columns = ("human_answers[]",)
    before_prompt, after_prompt, before_answer = HUMAN, ASSISTANT, " "


class MkqaChinese(RawDataset):
    """The Chinese questions of MKQA; the hub has a train split only."""

    name = "mkqa_chinese"
    hub_name = "mkqa-Chinese"
    repository = "mkqa"
    prompt_columns = ("queries.zh_cn",)
    chosen_columns = ("answers.zh_cn[].text",)
    before_prompt, after_prompt, before_answer = HUMAN, ASSISTANT, " "


class MkqaJapanese(MkqaChinese):
    """The Japanese questions of MKQA."""

    name = "mkqa_japanese"
    hub_name = "mkqa-Japanese"
    prompt_columns = ("queries.ja",)
    chosen_columns = ("answers.ja[].text",)


class QgJaquad(RawDataset):
    """Japanese questions, answered by the sentence that holds the answer."""

    name = "lmqg_qg_jaquad"
    hub_name = "lmqg/qg_jaquad"
    prompt_columns = ("question",)
    chosen_columns = ("sentence",)
    before_prompt, after_prompt, before_answer = HUMAN, ASSISTANT, " "
    evaluation_splits = ("validation", "test")


class QagJaquad(QgJaquad):
    """Japanese paragraphs, each the answer to the first question about it."""

    name = "lmqg_qag_jaquad"
    hub_name = "lmqg/qag_jaquad"
    prompt_columns = ("questions[]",)
    chosen_columns = ("paragraph",)
