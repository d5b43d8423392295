"""The tournament: one scoring an image gives what the rounds of pairs give."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanactl.judging.tournament import Verdict, beats, keep_best, knockout, rank

logprobs = st.floats(min_value=-30, max_value=0)
verdicts = st.builds(Verdict.of, logprobs, logprobs)
# Few distinct values, so that ties occur.
coarse = st.builds(Verdict.of, st.sampled_from([-0.1, -0.5, -2.0]), st.sampled_from([-0.1, -0.5, -2.0]))


def reference_rounds(scores: list[tuple[str, float, float]], indices: list[int]) -> int:
    """The reference's rounds for a power of two, written from its description: neighbours meet until one is left."""
    while len(indices) > 1:
        winners = []
        for a, b in zip(indices[::2], indices[1::2], strict=True):
            (said_a, yes_a, no_a), (said_b, yes_b, no_b) = scores[a], scores[b]
            if said_a == "yes" and said_b == "yes":
                winners.append(a if yes_a >= yes_b else b)
            elif said_a == "no" and said_b == "no":
                winners.append(a if no_a <= no_b else b)
            else:
                winners.append(a if said_a == "yes" else b)
        indices = winners
    return indices[0]


def test_the_rule() -> None:
    sure, unsure = Verdict.of(math.log(0.9), math.log(0.1)), Verdict.of(math.log(0.6), math.log(0.4))
    doubtful, wrong = Verdict.of(math.log(0.4), math.log(0.6)), Verdict.of(math.log(0.1), math.log(0.9))
    order = [sure, unsure, doubtful, wrong]
    for (i, a), (j, b) in itertools.product(enumerate(order), enumerate(order)):
        assert beats(a, b) == (i < j)
    assert [round(v.score, 3) for v in order] == [0.9, 0.6, -0.6, -0.9]


def test_a_judge_in_doubt_says_no() -> None:
    assert Verdict.of(-0.7, -0.7).verdict == "no"


@pytest.mark.parametrize("bad", [float("nan"), 0.5])
def test_only_log_probabilities_are_taken(bad: float) -> None:
    with pytest.raises(ValueError, match="log-probability"):
        Verdict.of(bad, -1.0)
    with pytest.raises(ValueError, match="log-probability"):
        Verdict.of(-1.0, bad)


@settings(max_examples=40, deadline=None)
@given(st.lists(verdicts | coarse, min_size=1, max_size=40))
def test_rank_is_what_all_pairs_give(images: list[Verdict]) -> None:
    order = rank(images)
    assert sorted(order) == list(range(len(images)))
    wins = [sum(beats(v, w) for w in images) for v in images]
    assert order == sorted(range(len(images)), key=lambda i: (-wins[i], i))


@settings(max_examples=40, deadline=None)
@given(st.lists(verdicts, min_size=1, max_size=40))
def test_the_score_has_the_order_of_the_rule(images: list[Verdict]) -> None:
    by_score = [images[i].score for i in rank(images)]
    assert by_score == sorted(by_score, reverse=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(verdicts | coarse, min_size=1, max_size=70))
def test_the_knockout_of_any_number_is_won_by_the_best(images: list[Verdict]) -> None:
    assert knockout(images) == rank(images)[:1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5).flatmap(lambda k: st.lists(verdicts | coarse, min_size=2**k, max_size=2**k)))
def test_the_reference_picks_the_same_winner_of_a_power_of_two(images: list[Verdict]) -> None:
    scores = [(v.verdict, v.yes_logprob, v.no_logprob) for v in images]
    assert rank(images)[0] == reference_rounds(scores, list(range(len(images))))


@settings(max_examples=40, deadline=None)
@given(st.lists(verdicts, min_size=1, max_size=50), st.integers(1, 8))
def test_survivors_hold_the_best_and_are_no_better_than_the_kept(images: list[Verdict], count: int) -> None:
    survivors, kept = knockout(images, count), keep_best(images, count)
    assert len(survivors) == len(kept) == min(count, len(images))
    assert kept[0] in survivors
    place = {image: i for i, image in enumerate(rank(images))}
    assert all(
        a <= b
        for a, b in zip(sorted(place[i] for i in kept), sorted(place[i] for i in survivors), strict=True)
    )


def test_ties_go_to_the_first() -> None:
    same = [Verdict.of(-0.2, -2.0)] * 5
    assert rank(same) == [0, 1, 2, 3, 4]
    assert knockout(same) == [0]
    assert keep_best(same, 2) == [0, 1]
    assert keep_best(same, None) == [0, 1, 2, 3, 4]


def test_certainties_that_round_to_one_still_differ() -> None:
    a, b = Verdict.of(-1e-20, -46.0), Verdict.of(-1e-21, -48.0)
    assert a.score == b.score == 1.0
    assert rank([a, b]) == [1, 0]


def test_nothing_to_rank() -> None:
    assert rank([]) == []
    assert knockout([]) == []
    with pytest.raises(ValueError, match="at least one"):
        knockout([], 0)
