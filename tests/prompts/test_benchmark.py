"""GenEval's benchmark: the official file from its seed."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from sanactl.cli.app import main
from sanactl.prompts.geneval.benchmark import BENCHMARK_SHA256
from sanactl.prompts.geneval.vocabulary import OBJECTS
from sanactl.records.prompts import parse_prompts
from sanactl.scoring.geneval.rules import TASKS, check_record


def test_the_official_file_is_written_byte_for_byte(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "geneval"]) == 0
    written = capsys.readouterr().out
    assert hashlib.sha256(written.encode()).hexdigest() == BENCHMARK_SHA256
    records = parse_prompts(written.splitlines(), "stdin")
    for record in records:
        check_record(record)
        assert {clause["class"] for clause in record["include"]} <= {*OBJECTS}
    sizes = dict(zip(TASKS, (80, 99, 80, 94, 100, 100), strict=True))
    assert Counter(r["tag"] for r in records) == sizes
    assert [r["id"] for r in records] == [f"{number:05d}" for number in range(553)]
