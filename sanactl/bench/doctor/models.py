"""The built-in detector and judge, on pictures whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator

from sanactl.bench.doctor.finding import Finding, Place, ok, wrong

__all__ = ["check_detector", "check_judge"]


def check_detector(place: Place) -> Iterator[Finding]:
    """`eval detector-check` of the built-in detector: one picture of each task."""
    from sanactl.scoring.detectors.check import check_record
    from sanactl.scoring.detectors.registry import open_detector

    del place  # it computes on the CPU
    detector = open_detector("shapes")
    record = check_record(detector)  # raises for a picture that is not recognised
    yield ok(detector.label, "it finds what was drawn in a picture of each task", float(record["value"]))


def check_judge(place: Place) -> Iterator[Finding]:
    """The built-in judge's verdicts on two pictures, each with its own prompt and with the other's."""
    import numpy as np

    from sanactl.judging.check import check_verdicts
    from sanactl.judging.registry import DEFAULT, open_judge
    from sanactl.shapes.prompts import load_eval_prompts, scene_for
    from sanactl.shapes.render import render

    prompts = [record for record in load_eval_prompts() if record["tag"] == "colors"]
    first = prompts[0]
    # Of another shape in another colour, so that no prompt fits both.
    second = next(
        p
        for p in prompts
        if all(p["include"][0][key] != first["include"][0][key] for key in ("class", "color"))
    )
    pictures = [render(scene_for(p, np.random.default_rng(0)), 64) for p in (first, second)]
    judge = open_judge(DEFAULT, device=None if place.named is None else str(place.device))
    records = [first, second, second, first]
    verdicts = judge.judge([*pictures, *pictures], records)
    check_verdicts(judge.name, verdicts, records)
    right = ["yes", "yes", "no", "no"]
    faults = [
        f"{v.verdict} for {record['prompt']!r} on a picture of {'it' if expected == 'yes' else 'something else'}"
        for v, record, expected in zip(verdicts, records, right, strict=True)
        if v.verdict != expected
    ]
    count = len(right) - len(faults)
    if faults:
        yield wrong(judge.name, f"it says {faults[0]}; its choices would mean nothing", count / len(right))
    else:
        yield ok(judge.name, "it tells two pictures by their prompts", 1.0)
