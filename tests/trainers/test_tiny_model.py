"""The locally built tokenizer and model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.config import ModelConfig
from agentgym.trainers.tiny_model import SCAFFOLD, SPECIALS, build_model, build_tokenizer

TOKENIZER = build_tokenizer(["What is pear*47+12?", "lookup the price_of an item"])


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text


def pieces(text: str) -> list[str]:
    return [TOKENIZER.decode([i]) for i in TOKENIZER.encode(text, add_special_tokens=False)]


def test_known_words_stay_whole_and_digits_single() -> None:
    assert pieces("pear*47+price_of") == ["pear", "*", "4", "7", "+", "price_of"]
    assert pieces("pears") == list("pears"), "an unknown word falls to bytes"


@pytest.mark.parametrize("token", [*SPECIALS, *SCAFFOLD])
def test_scaffold_is_one_token(token: str) -> None:
    assert len(TOKENIZER.encode(token, add_special_tokens=False)) == 1


def test_the_model_is_a_function_of_its_seed() -> None:
    def weights(seed: int) -> Any:
        return build_model(50, ModelConfig(layers=1, width=32, heads=2), max_context=32, seed=seed).state_dict()

    same = [all(bool((a[k] == b[k]).all()) for k in a) for a, b in [(weights(1), weights(1)), (weights(1), weights(2))]]
    assert same == [True, False]
