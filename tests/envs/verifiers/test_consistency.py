"""Answers that follow from what was shown, and answers that do not; precision and recall on constructed episodes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.envs.script import call, say
from agentgym.envs.store import StoreEnv
from agentgym.envs.verifiers.consistency import Agreement, check_consistency, check_trace, final_answer
from agentgym.envs.verifiers.contradictions import find_contradictions
from agentgym.envs.verifiers.quantities import agrees, read_facts
from agentgym.envs.verifiers.statements import read_statements
from agentgym.types import Message, Outcome, StopReason, Task
from tests.envs.verifiers.trajectories import trajectory

Talk = Sequence[Message]


def ask(text: str) -> Message:
    return Message("user", text)


def told(text: str, call_id: str = "call_0") -> Message:
    return Message("tool", text, tool_call_id=call_id)


def looked_up(final: str, price: str = "37", question: str = "What is pear*4+12?") -> list[Message]:
    """A question, one lookup of the pear's price, one calculation, and a final answer."""
    return [
        ask(question),
        call("lookup", "a", item="pear"),
        told(price, "a"),
        call("calculator", "b", expression=f"{price}*4+12"),
        told("160", "b"),
        say(final),
    ]


TRACED: dict[str, Talk] = {
    "the result": looked_up("160"),
    "words around it": looked_up("The pear costs 37, so 4 pears and 12 more are $160."),
    "written otherwise": [ask("Of 1200?"), say("1,200 = 1200.00 = 1.2k = $1,200")],
    "rounded": [ask("A third of 1?"), call("calculator", expression="1/3"), told("3.3333333"), say("about 3.33")],
    "a percentage": [ask("A share of 0.15."), say("That is 15%.")],
    "a loss": [ask("Change: -5"), say("A loss of 5.")],
    "busy, worked out by hand": [
        ask("What is 37*4?"),
        call("calculator", expression="37*4"),
        told("busy"),
        say("148"),
    ],
    "a constant in a sum": [ask("17 of 68?"), call("calculator", expression="17/68*100"), told("25.0"), say("25%")],
    "a chain of sums": [
        ask("3 boxes of 14, and 9 more?"),
        call("calculator", "a", expression="3*14"),
        told("42", "a"),
        call("calculator", "b", expression="42+9"),
        told("51", "b"),
        say("51"),
    ],
    "codes and dates": [
        ask("Where is order #W237?"),
        call("track", order="#W237"),
        told('{"order": "#W237", "eta": "2024-05-15", "carrier": "HAT-12"}'),
        say("Order W237 comes on 2024-05-15 with HAT-12."),
    ],
    "list items": [ask("Options: A at 40, B at 35"), say("1. B costs 35\n2. A costs 40\nStep 3: choose B")],
    "quoted": [ask("?"), call("read"), told("The sign says: Mind the GAP."), say('It says "mind the gap".')],
    "thousands of words": [ask("Population?"), call("find"), told("2,161,000 people"), say("2.161 million")],
    "seen in the system message": [Message("system", "The limit is 30 days."), ask("How long?"), say("30 days")],
}
UNTRACED: dict[str, Talk] = {
    "guessed": [ask("What is pear*4+12?"), say("160")],
    "another number": looked_up("162"),
    "one of two": looked_up("The pear costs 38, together 160."),
    "a tool that repeats": [ask("?"), call("note", text="it is 999"), told("noted: it is 999"), say("999")],
    "a sum of inventions": [ask("?"), call("calculator", expression="900+99"), told("999"), say("999")],
    "constants alone": [ask("?"), call("calculator", expression="10*100-1"), told("999"), say("999")],
    "its own earlier words": [ask("?"), Message("assistant", "It is 41.", tool_calls=call("t").tool_calls), say("41")],
    "not a rounding": [ask("It is 1234."), say("1200")],
    "too coarse": [ask("It is 0.7."), say("1")],
    "another code": [ask("Order #W237?"), say("Order #W238 is on its way.")],
    "another date": [ask("Due 2024-05-15."), say("Due 2024-05-16.")],
    "invented quotation": [ask("What does it say?"), say('It says "mind the gap".')],
    "negative": [ask("It is 5."), say("It is -5.")],
    "another size": [ask("It is 1.2 million."), say("1.2")],
}


@pytest.mark.parametrize("name", TRACED)
def test_traced(name: str) -> None:
    verdict = check_trace(TRACED[name])
    assert verdict.outcome is Outcome.correct, verdict.reason
    assert verdict.value == 1.0
    assert not find_contradictions(TRACED[name])


@pytest.mark.parametrize("name", UNTRACED)
def test_untraced(name: str) -> None:
    verdict = check_trace(UNTRACED[name])
    assert verdict.outcome is Outcome.incorrect
    assert verdict.value < 1.0
    assert verdict.reason.startswith("never shown: ")


def test_the_score_is_the_share_and_the_reason_names_the_rest() -> None:
    verdict = check_trace(looked_up("37, 4, 12 and 999"))
    assert (verdict.value, verdict.reason) == (0.75, "never shown: 999")


def test_nothing_said_earns_nothing() -> None:
    assert check_trace([ask("?"), say("")]).value == 0
    assert check_trace([ask("?"), say("I do not know.")]).value == 0
    assert check_trace([ask("?"), call("lookup", item="pear")]).value == 0, "a call is no answer"


def test_what_is_allowed() -> None:
    talk = [ask("Weights of 30 and 12?"), say("18 apart; 2 options")]
    assert check_trace(talk).value == 0
    assert check_trace(talk, derive="pairs").value == 0.5
    assert check_trace(talk, derive="pairs", allow=(2,)).value == 1
    named = [ask("Who wrote it?"), call("find"), told("by Ada Lovelace"), say("It was Ada Lovelace, not Grace Hopper.")]
    assert check_trace(named, names=True).value == 0.5


CLASHES: dict[str, Talk] = {
    "own words": [ask("?"), say("The price of pear is 37."), ask("And?"), say("The pear costs 40.")],
    "the tool's result": looked_up("The pear costs 40, so it is 160."),
    "in one message": [ask("?"), say("The total is 12. Later on, the total is 13.")],
    "fields of JSON": [
        ask("?"),
        call("quote", name="Swift"),
        told('{"carrier": {"name": "Swift", "price": 40, "weight": 3}}'),
        say("Swift costs 45."),
    ],
    "rows of JSON": [
        ask("?"),
        call("quotes"),
        told('[{"name": "Swift", "price": 40}]'),
        say("The price of Swift is 39."),
    ],
    "arithmetic": [ask("37 and 4"), say("37*4 = 150")],
    "a chain": [ask("37 and 4"), say("37 * 4 + 2 = 150 = 151")],
    "a quantity": [ask("?"), say("Alice has 3 apples. Bob has 2 apples. Alice has 5 apples.")],
    "a label": [ask("?"), say("Weight: 12kg\nPrice: 3\n\nWeight: 14kg")],
}
AT_PEACE: dict[str, Talk] = {
    "the same": [ask("?"), say("The price of pear is 37."), ask("And?"), say("The pear costs 37.00.")],
    "other things": [ask("?"), say("The pear costs 37. The plum costs 40. The pear weighs 40.")],
    "clauses": [ask("?"), say("The pear costs 37 and the plum costs 40, while tea costs 12.")],
    "news": [
        ask("?"),
        say("The balance is 50."),
        ask("Pay 20."),
        call("pay", amount=20),
        told("new balance: 30"),
        say("The balance is 30."),
    ],
    "corrected": [ask("?"), say("The pear costs 37. Sorry, the pear costs 40.")],
    "supposed": [ask("?"), say("The pear costs 37. If the pear costs 40, it is dear. Is the pear 50?")],
    "compared": [ask("?"), say("The pear costs 37. The pear costs less than 40. The pear costs at least 30.")],
    "other days": [ask("?"), say("On Monday, the room costs 40. On Tuesday, the room costs 50.")],
    "other days, later": [ask("?"), say("The room costs 40 on Monday. The room costs 50 on Tuesday.")],
    "other units": [ask("?"), say("The pear costs 37 cents. The pear costs $0.37.")],
    "rounded": [ask("?"), say("The distance is 3.1416. The distance is 3.14.")],
    "on the way": [ask("?"), say("The total is 37*4+12. The total is 160. 37*4+12 = 160, 1/3 = 0.33")],
    "another's property": looked_up("The pear weighs 12, so 160."),
    "retried": [
        ask("?"),
        call("lookup", "a", item="pear"),
        told("busy", "a"),
        call("lookup", "b", item="pear"),
        told("37", "b"),
        say("The pear costs 37."),
    ],
    "guessed, then found": [
        ask("?"),
        Message("assistant", "The pear costs 40.", tool_calls=call("lookup", "a", item="pear").tool_calls),
        told("37", "a"),
        say("The pear costs 37."),
    ],
    "two items": [
        ask("?"),
        call("lookup", "a", item="pear"),
        told("37", "a"),
        call("lookup", "b", item="plum"),
        told("40", "b"),
        say("The plum costs 40 and the pear costs 37."),
    ],
    "pronouns": [ask("?"), say("Take the pear. It costs 37. Take the plum. It costs 40.")],
    "dates": [ask("?"), say("The deadline is 2024-05-15. The deadline is 2 days away.")],
    "ranges": [ask("?"), say("Delivery takes 3-5 days. Delivery takes 4 days.")],
}


@pytest.mark.parametrize("name", CLASHES)
def test_contradictions(name: str) -> None:
    found = find_contradictions(CLASHES[name])
    assert len(found) == 1, [str(clash) for clash in found]
    assert check_consistency(CLASHES[name]).outcome is Outcome.incorrect
    assert check_consistency(CLASHES[name]).value < 1


@pytest.mark.parametrize("name", AT_PEACE)
def test_no_contradictions(name: str) -> None:
    assert [str(clash) for clash in find_contradictions(AT_PEACE[name])] == []


def test_a_contradiction_counts_as_a_fact_that_was_not_shown() -> None:
    verdict = check_consistency(looked_up("The pear costs 40: 37 and 160 and 4"))
    assert verdict.value == pytest.approx(3 / 5)
    assert "lookup(item='pear') -> 37" in verdict.reason
    assert "never shown: 40" in verdict.reason


def test_statements() -> None:
    (one,) = read_statements("So the price of each pear is exactly $37 now.")
    assert (one.subject, one.attribute, one.quantity.value, one.unit) == ({"pear"}, "price", 37, "$")


@pytest.mark.parametrize(
    ("answers", "shares"),
    [
        (["1,200", "The answer is $1200.00.", "#### 1200", "7"], [0.75, 0.75, 0.75, 0.25]),
        (["Paris", "so the answer is: paris.", "", "Rome"], [0.5, 0.5, 0.0, 0.25]),
        (["\\boxed{3}", "thus\n3", "15%", "15"], [0.5, 0.5, 0.25, 0.25]),
    ],
)
def test_agreement(answers: list[str], shares: list[float]) -> None:
    group = [trajectory(say(answer)) for answer in answers]
    assert Agreement()(Task("t", "?"), group) == shares


def test_what_was_cut_short_agrees_with_nobody() -> None:
    cut = trajectory(say("3"), stop_reason=StopReason.max_tokens)
    asking = trajectory(call("lookup", item="pear"), stop_reason=StopReason.max_turns)
    assert Agreement()(Task("t", "?"), [trajectory(say("3")), cut, asking]) == [pytest.approx(1 / 3), 0, 0]


@settings(max_examples=50)
@given(st.text(max_size=100))
def test_any_text_is_read(text: str) -> None:
    read_facts(text)
    list(read_statements(text))
    final_answer(text)
    assert 0 <= check_consistency([ask("What is 3?"), say(text)]).value <= 1


def test_the_stores_own_play() -> None:
    """Each gold episode is consistent, however its answer is told; with another number in it none is."""
    env = StoreEnv(busy=0.3)
    tasks = env.tasks("test")
    for i in range(60):
        task = tasks[i]
        env.reset(seed=i, options={"task": task})
        player, episode = env.expert(task, i), env.episode
        assert episode is not None
        while not (message := player(episode.messages)).text:
            env.step(message)
        before = list(episode.messages)
        for text in ("{}", "The answer is {}.", "I looked it up, and the total is exactly ${}."):
            good = [*before, say(text.format(message.text))]
            assert check_consistency(good).value == 1.0, check_consistency(good).reason
            bad = [*before, say(text.format(int(message.text) + 1))]
            assert check_consistency(bad).value == 0.0, "one more is a number that nobody has shown"


@settings(max_examples=50)
@given(st.integers(-(10**9), 10**9))
def test_a_number_is_found_in_each_of_its_writings(n: int) -> None:
    for text in (f"{n}", f"{n:,}", f"{n}.00", f"${n}" if n >= 0 else f"-${-n}", f"so x={n}."):
        (found,), codes = read_facts(text)
        assert (found.value, codes) == (n, [])
        assert agrees(found, read_facts(str(n))[0][0])


@pytest.mark.parametrize("text", ["1 = ", "is ", "(", "9", "1+", "a-", '"', "A ", "pear is 1. "])
def test_long_texts_take_no_time(text: str) -> None:
    """Each takes a blink; where a pattern were quadratic, minutes."""
    check_consistency([ask("What?"), say(text * (20_000 // len(text)))], names=True)
