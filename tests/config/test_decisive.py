"""Which settings a continued run may change, and how two runs' settings are compared."""

from __future__ import annotations

from pathlib import Path

from dschat.config.decisive import decisive_settings, differences
from dschat.config.flag import flags_of
from tests.config.commands import parsed, section_classes

MAY_CHANGE = """
local_rank dry_run trust_remote_code dist_timeout deepspeed_config
output_dir overwrite_output_dir enable_tensorboard tensorboard_path data_output_path
save_steps save_total_limit save_only_model resume resume_override on_full_disk on_nan max_skipped_steps
eval_interval eval_iters eval_steps eval_prompts per_device_eval_batch_size print_answers print_answers_interval
data_path data_format sft_only_data_path
""".split()


def test_a_flag_decides_unless_it_is_on_the_list() -> None:
    flags = {name: flag for section in section_classes() for name, flag in flags_of(section).items()}
    assert sorted(name for name, flag in flags.items() if flag.may_change) == sorted(MAY_CHANGE)


def test_settings_are_compared_by_the_names_of_their_flags() -> None:
    settings = decisive_settings(parsed("wpr", "--save_steps 7"))
    assert settings["--kl_ctl"] == 0.05
    assert settings["regularizer settings"] == "WassersteinConfig"
    assert "--save_steps" not in settings
    assert differences(settings, decisive_settings(parsed("wpr", "--kl_ctl 0.1 --save_steps 8"))) == [
        "--kl_ctl was 0.05, is 0.1"
    ]


def test_the_file_of_overrides_is_compared_by_its_content(tmp_path: Path) -> None:
    first, same, other = (tmp_path / name for name in ("first.json", "same.json", "other.json"))
    first.write_text('{"a": 1}')
    same.write_text('{ "a": 1 }')
    other.write_text('{"a": 2}')
    saved, alike, changed = (
        decisive_settings(parsed("sft", f"--deepspeed_config {path}")) for path in (first, same, other)
    )
    assert differences(saved, alike) == []
    assert differences(saved, changed) == ["content of --deepspeed_config was {'a': 1}, is {'a': 2}"]
