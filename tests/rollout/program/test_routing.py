"""Programs' branches know the experts of their tokens, where answers were cut at a stop and told anew, too."""

from __future__ import annotations

from typing import Any

from agentgym.rollout.renderer import ChatRenderer
from tests.rollout.telling import Telling, known, rows_of

USER = {"role": "user", "content": "How many nuts are there?"}


def test_experts_through_branches_and_stops(given: Any, renderer: ChatRenderer) -> None:
    texts = ["there are 7 nuts", "7", "12 bolts count 3", "0 1 2"]
    end = renderer.stop_ids[0]
    engine = Telling([[*renderer.tokenizer.encode(text, add_special_tokens=False), end] for text in texts])

    async def program(base_url: str, api_key: str) -> str:
        wire = given.Wire(base_url, api_key)
        first = await wire.say([USER], stop=[" nuts"])
        asked = [USER, first, USER]
        second = await wire.say(asked)
        await wire.say([USER, first, {"role": "user", "content": "bolts?"}])  # another way on from the first
        return str((await wire.say([*asked, second, USER]))["content"])

    done = given.play(program, engine, renderer, routing=True)
    assert [turn.parent for turn in done.turns] == [None, 0, 0, 1]
    assert done.turns[0].completion.experts is not None
    rows = rows_of(done)
    assert len(rows) == 2
    for row in rows:
        assert known(row) == [True] * (len(row.ids) - 1) + [False]
