"""Contenders are measured in turn, each by its best time."""

from __future__ import annotations

import time

import torch

from measure import environment, measure_in_turn, wide_console

CPU = torch.device("cpu")


def test_contenders_take_turns_and_stop_when_their_time_is_up() -> None:
    order: list[str] = []
    contenders = {"slow": lambda: (order.append("slow"), time.sleep(0.03)), "fast": lambda: order.append("fast")}
    found = measure_in_turn(contenders, device=CPU, repeats=4, seconds_each=0.05)
    assert [found[name].runs for name in ("slow", "fast")] == [2, 4]
    # one run of each before, for the memory
    assert order == ["slow", "fast"] * 3 + ["fast"] * 2
    assert found["slow"].seconds >= 0.03 > found["fast"].seconds


def test_memory_of_one_run_is_beyond_what_was_there() -> None:
    found = measure_in_turn({"big": lambda: torch.ones(2**23)}, device=CPU, repeats=1, seconds_each=1.0)
    peak = found["big"].peak_bytes
    assert peak is None or 2**24 < peak < 2**28


def test_a_reader_is_told_machine_and_versions() -> None:
    found = environment(CPU)
    assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
    assert found["geomloss"] is None or isinstance(found["geomloss"], str)
    assert wide_console().width >= 80
