"""Echo: answering with the prompt, or with what a blindly called tool said, pays nothing."""

from __future__ import annotations

from collections.abc import Iterable

from agentgym.envs.validate.bench import Bench, Case
from agentgym.envs.validate.explore import answers_from, call_with, calling, is_meant
from agentgym.envs.validate.finding import Finding
from agentgym.envs.validate.floor import Attack, hold, says
from agentgym.types import Message

MOST = 8
"""Tools that are tried."""


def check(bench: Bench) -> Finding:
    def attacks(case: Case) -> Iterable[Attack]:
        prompt = prompt_of(bench, case)
        whole = "\n".join(message.text for message in prompt)
        last = prompt[-1].text if prompt else ""
        for text in dict.fromkeys((whole, last, last.strip().rpartition("\n")[2])):
            yield says("the prompt", text)
        if bench.golds[case] is not None:  # without gold nobody knows which calls are the task itself
            yield from _of_tools(bench, case, last)

    return hold(bench, "echo", attacks)


def prompt_of(bench: Bench, case: Case) -> tuple[Message, ...]:
    """What the agent is told at first."""
    played = bench.golds[case]
    if played is not None:
        return played.start.messages
    return (Message("user", case.task.prompt),) if isinstance(case.task.prompt, str) else case.task.prompt


def _of_tools(bench: Bench, case: Case, last: str) -> Iterable[Attack]:
    played = bench.golds[case]
    assert played is not None
    blinds = {"the prompt": last} if bench.heavy else {"the prompt": last, "'0'": "0", "nothing": ""}
    for schema in bench.schemas[: 2 if bench.heavy else MOST]:
        for told, blind in blinds.items():
            call = call_with(schema, blind)
            if is_meant(call, played.calls):
                continue
            # to ask one of the task's own tools by the prompt, and to read its reply, may well be the task
            own = told == "the prompt" and any(made.name == call.name for made in played.calls)
            most = 1 if own else 3 if bench.heavy else None
            heard = bench.play(says("", calling(call), "").policy, case).observations
            for rule, answer in answers_from(heard[0].text if heard else "", bench.answer(case), most):
                yield says(f"{rule} of what {call.name} says to {told}", calling(call), answer, lucky=True)
