"""`verify_qa`, `exact_match` and `token_f1`."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentgym
from agentgym import exact_match, token_f1, verify_qa
from agentgym.envs.verifiers.qa import final_answer, normalise
from agentgym.types import Outcome

DATA = Path(os.environ.get("AGENTGYM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("Paris", "paris"),
        ("The Eiffel Tower", " an  eiffel tower. "),
        ("Levi's", "Levi\u2019s"),
        ("1990-1995", "1990\u20131995"),
        ("1000", "1,000"),
        ("1,000.50", "$1000.5"),
        (5, "5.0"),
        (-5, "\u22125"),
        ("0.5", ".5"),
        (True, "Yes."),
        ("no", "No"),
        (["nine", 9], "9"),
        ("Zu\u0308rich", "Z\u00fcrich"),
        ("A", "a"),
        ("The The", "the the"),
        ("\u5317\u4eac", "\u5317\u4eac\u3002"),
    ],
)
def test_equal_answers(gold: object, answer: str) -> None:
    assert verify_qa(gold, answer) is Outcome.correct  # type: ignore[arg-type]
    assert exact_match(gold, answer)  # type: ignore[arg-type]
    assert token_f1(gold, answer) == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("Paris", "London"),
        ("Paris", "Paris or London"),
        ("Paris", "It is Paris"),
        ("5", "-5"),
        ("35", "3.5"),
        ("3.14", "314"),
        ("1,000", "1.000"),
        (False, "yes"),
        ("yes", "yes and no"),
        (["a b", "c"], "a b c"),
        ("A", "an"),
        ("The The", "the"),
        ("++", "--"),
    ],
)
def test_different_answers(gold: object, answer: str) -> None:
    assert verify_qa(gold, answer) is Outcome.incorrect  # type: ignore[arg-type]
    assert not exact_match(gold, answer)  # type: ignore[arg-type]
    assert token_f1(gold, answer) < 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", ["", "  \n", "<think>Paris", "<think>Paris</think>", "<answer></answer>", "Answer:"])
def test_no_answer_is_none_even_where_nothing_is_left_of_the_gold(answer: str) -> None:
    for gold in ("Paris", "the", "..."):
        assert verify_qa(gold, answer) is Outcome.unparsable
        assert not exact_match(gold, answer)
        assert token_f1(gold, answer) == 0.0


@pytest.mark.parametrize(
    ("answer", "strict", "auto"),
    [
        ("Paris", "Paris", "Paris"),
        ("I searched.\nAnswer: Paris", "Paris", "Paris"),
        ("Answer: London\nNo.\n**Final Answer:** Paris\nThat is all.", "Paris", "Paris"),
        ("The answer is: Paris", "Paris", "Paris"),
        ("Answer:\n\n**Paris**", "Paris", "Paris"),
        ("The answer is Paris", "The answer is Paris", "The answer is Paris"),
        ("<think>Answer: London</think>Paris", "Paris", "Paris"),
        ("<answer>London</answer> or <answer> Paris </answer>.", "Paris", "Paris"),
        ("<answer>Paris", "Paris", "Paris"),
        ("so \\boxed{\\text{New {York}}}", "so \\boxed{\\text{New {York}}}", "\\text{New {York}}"),
        ("so \\boxed{\\text{Paris}}", "so \\boxed{\\text{Paris}}", "Paris"),
        ("so \\boxed{Paris", "so \\boxed{Paris", "so \\boxed{Paris"),
    ],
)
def test_what_of_a_message_is_its_answer(answer: str, strict: str, auto: str) -> None:
    assert final_answer(answer, "strict") == strict
    assert final_answer(answer, "auto") == auto
    assert final_answer(answer, "bare") == answer


def test_f1() -> None:
    assert token_f1("hello", "hello world") == pytest.approx(2 / 3)
    assert token_f1(["goodbye", "the hello world"], "hello hello world") == pytest.approx(4 / 5)
    assert token_f1("yes", "yes it is") == 0.0  # as HotpotQA's evaluation
    assert verify_qa("Albert Einstein", "Einstein", min_f1=0.6) is Outcome.correct
    assert verify_qa("Albert Einstein", "Einstein", min_f1=0.7) is Outcome.incorrect


@pytest.mark.parametrize("gold", ["", " ", [], ["Paris", ""]])
def test_a_gold_that_is_empty(gold: object) -> None:
    with pytest.raises(ValueError, match="gold answer is empty"):
        verify_qa(gold, "Paris")  # type: ignore[arg-type]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="must be text or a number, got dict"):
        verify_qa([{}], "x")  # type: ignore[list-item]
    with pytest.raises(ValueError, match="extract must be one of auto, strict, bare"):
        verify_qa("x", "x", extract="loose")  # type: ignore[arg-type]


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_has_a_verdict(gold: str, answer: str) -> None:
    assert normalise(normalise(answer)) == normalise(answer) or any(c.isdigit() or not c.isascii() for c in answer)
    if gold.strip():
        verdict = verify_qa(gold, answer)
        assert (verdict is Outcome.correct) == exact_match(gold, answer)
        assert 0.0 <= token_f1(gold, answer) <= 1.0
        assert verify_qa(gold, gold, extract="bare") is Outcome.correct


def test_large_texts_are_no_trouble() -> None:
    for text in ("a " * 500_000, "-" * 1_000_000, "1," * 500_000, "<answer>" * 100_000, "Answer: \n" * 100_000):
        assert not verify_qa("Paris", text)


def test_recorded_cases() -> None:
    path = DATA / "open" / "qa_match_cases.jsonl"
    if not path.exists():
        pytest.skip(f"no recorded cases at {path} (set AGENTGYM_DATA to the folder of benchmark data)")
    for row in map(json.loads, path.read_text().splitlines()):
        if row["metric"] == "normalized_exact":
            assert bool(agentgym.verify_qa(row["gold"], row["pred"])) == bool(row["expected_score"]), row
        else:
            assert token_f1(row["gold"], row["pred"]) == pytest.approx(row["expected_score"]), row
