"""What supervisor and zygote say to each other fits through the socket and comes out as it went in."""

from __future__ import annotations

import json
from dataclasses import asdict

from dschat.code_execution.inside import protocol
from dschat.code_execution.inside.protocol import ENDED, REQUEST, Settings


def test_settings_survive_the_command_line() -> None:
    settings = Settings(7, uid=60800, readable_paths=["/usr/lib"], other_tasks=None)
    assert Settings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_limits_beyond_32_bits_come_through() -> None:
    limits = (3, 2**40, 16)
    assert REQUEST.unpack(REQUEST.pack(*limits)) == limits
    assert ENDED.unpack(ENDED.pack(-9, 0.25)) == (-9, 0.25)


def test_codes_and_descriptors_are_told_apart() -> None:
    codes = [
        protocol.RUNNING, protocol.FAULT, protocol.DONE, protocol.COMPILE_ERROR, protocol.RUNTIME_ERROR,
        protocol.NO_FUNCTION, protocol.MEMORY_ERROR,
    ]  # fmt: skip
    assert len({*codes}) == len(codes)
    assert all(len(code) == 1 for code in codes)
    numbers = [protocol.STDIN, protocol.OUTPUT, protocol.NOISE, protocol.REPORT, protocol.JOB]
    assert numbers == list(range(protocol.DESCRIPTORS))
