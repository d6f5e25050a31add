"""Which settings a resumed run is held to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dschat.config.decisive import FREE_SETTINGS, decisive_settings, differences
from dschat.config.sections import DivergenceConfig, WassersteinConfig
from dschat.config.steps import parse_ppo_config, parse_reward_config, parse_sft_config
from tests.config import commands


def ppo(*more: str, section: type = DivergenceConfig):
    return parse_ppo_config([*commands.PPO, *more], regularizer=section)


def test_a_free_setting_is_a_flag_of_some_step() -> None:
    configs = [ppo(section=WassersteinConfig), parse_sft_config(commands.SFT), parse_reward_config(commands.REWARD)]
    flags = {
        field.name
        for config in configs
        for part in dataclasses.fields(config)
        for field in dataclasses.fields(getattr(config, part.name))
    }
    assert sorted(FREE_SETTINGS - flags) == []


def test_only_what_decides_the_numbers_is_compared(tmp_path: Path) -> None:
    before = decisive_settings(ppo())
    assert differences(before, decisive_settings(ppo("--output_dir", str(tmp_path), "--save_steps", "7"))) == []
    assert differences(before, decisive_settings(ppo("--gamma", "0.5"))) == ["--gamma was 1.0, is 0.5"]


def test_another_variant_and_another_file_of_settings_differ(tmp_path: Path) -> None:
    before = decisive_settings(ppo())
    found = differences(before, decisive_settings(ppo(section=WassersteinConfig)))
    assert "regularizer settings was DivergenceConfig, is WassersteinConfig" in found
    assert "--top_k was absent, is 128" in found
    file = tmp_path / "deepspeed.json"
    file.write_text('{"gradient_clipping": 0.5}')
    found = differences(before, decisive_settings(ppo("--deepspeed_config", str(file))))
    assert found == ["content of --deepspeed_config was None, is {'gradient_clipping': 0.5}"]


def test_lists_that_json_made_of_tuples_are_the_same() -> None:
    assert differences({"--names": ["a"]}, {"--names": ("a",)}) == []
