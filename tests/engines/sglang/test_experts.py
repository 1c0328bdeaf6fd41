"""Experts told by a server: real ones of a mixture, put together from the pieces of a completion."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.config import Config, load_config
from agentgym.engines.mixture import Mixture
from agentgym.engines.sglang.commands import cpu_command
from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.experts import Told
from agentgym.engines.sglang.interpreter import find_python
from agentgym.engines.sglang.layout import read_layout
from agentgym.engines.sglang.make import make_sglang, server_command
from agentgym.engines.sglang.process import ServerCommand, ServerProcess
from agentgym.engines.sglang.sampling import Segment, request_body
from agentgym.errors import ConfigError, EngineFault
from agentgym.types import SamplingParams

FAKE_SERVER = Path(__file__).parent / "fake_server.py"
FLAG = "--enable-return-routed-experts"
CPU_ARGUMENTS = ("--max-total-tokens", "4096", "--skip-tokenizer-init", "--random-seed", "7", FLAG)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("fake", marks=pytest.mark.xdist_group("the fake SGLang server that tells experts")),
        pytest.param("sglang", marks=[pytest.mark.sglang, pytest.mark.timeout(900)]),
    ],
)
def mixture_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, given: Any
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("mixture")
    given.build_model("qwen3_moe").save_pretrained(folder / "model")
    if request.param == "fake":
        command = ServerCommand(sys.executable, str(FAKE_SERVER), (FLAG,), {"OMP_NUM_THREADS": "1"})
    else:
        command = cpu_command(find_python(), 1, CPU_ARGUMENTS)
    server = ServerProcess(command, str(folder / "model"), folder / "server.log")
    server.wait_ready()
    yield server
    server.close()


def build(sections: dict[str, Any]) -> Config:
    return load_config(None, sections)


def plain_experts(model: Any, ids: list[int]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), use_cache=False, output_router_logits=True)
    chosen = torch.stack([logits.topk(2).indices for logits in out.router_logits], 1)
    return chosen.sort(-1).values.numpy()


def test_the_experts_of_several_turns(mixture_server: ServerProcess, given: Any) -> None:
    """The second turn begins where the first one's experts end; a server has that part of the prompt in its cache."""
    engine = SGLangEngine(mixture_server.url, layout=read_layout(mixture_server.model), max_context=given.CONTEXT)
    assert engine.facts.tells_experts

    async def play() -> tuple[list[int], list[Any]]:
        ids, told = list(range(3, 27)), []
        for turn in range(3):
            params = SamplingParams(6, seed=turn, experts_from=sum(map(len, told)))
            done = await engine.generate(ids, params)
            assert done.experts is not None
            told.append(done.experts)
            ids += [*done.ids.tolist(), 5, 6]
        silent = await engine.generate(ids, SamplingParams(2, seed=9))
        assert silent.experts is None
        await engine.aclose()
        return ids[:-3], told

    ids, told = asyncio.run(play())
    expected = plain_experts(given.build_model("qwen3_moe"), ids)
    np.testing.assert_array_equal(np.sort(np.concatenate(told), -1), expected)


def test_a_completion_that_is_broken_off_and_continued(mixture_server: ServerProcess, given: Any) -> None:
    """As by weights that change under a request: every token's experts are told, once."""
    engine = SGLangEngine(
        mixture_server.url, layout=read_layout(mixture_server.model), max_context=given.CONTEXT, pause="abort"
    )

    async def play() -> Any:
        asked = asyncio.create_task(engine.generate([7, 8, 9], SamplingParams(40, seed=4, experts_from=0)))
        for _ in range(3):
            await asyncio.sleep(0.03)
            async with engine._refit.paused():
                pass
        done = await asked
        await engine.aclose()
        return done

    done = asyncio.run(play())
    assert len(done.ids) == 40
    expected = plain_experts(given.build_model("qwen3_moe"), [7, 8, 9, *done.ids.tolist()][:-1])
    np.testing.assert_array_equal(np.sort(done.experts, -1), expected)


def segment(ids: int, told: Any, reason: Any = "stop") -> Segment:
    text = "" if told is None else base64.b64encode(np.asarray(told, np.int32).tobytes()).decode()
    return Segment([0] * ids, [0.0] * ids, [0] * ids, reason, 4, 0, text)


def test_pieces_are_put_together_and_held_against_the_tokens() -> None:
    told = Told(Mixture(2, 8, 1), known=1)
    told.add(segment(0, None, "abort"), sent=4)  # it never ran
    told.add(segment(3, np.arange(1, 6).repeat(2), "abort"), sent=4)  # tokens 1 to 5
    assert told.known == 6
    told.add(segment(1, [6, 6], "stop"), sent=7)
    assert told.experts is not None
    np.testing.assert_array_equal(told.experts[:, 0, 0], np.arange(1, 7))
    with pytest.raises(EngineFault, match="experts were asked for 2 tokens, 1 in each of 2 layers, and 3 came"):
        told.add(segment(1, [1, 1, 1]), sent=9)
    with pytest.raises(EngineFault, match="experts from 1 to 8 were told of a model that has 8"):
        told.add(segment(1, [1, 8, 1, 1]), sent=9)
    with pytest.raises(EngineFault, match="cannot be read"):
        told.add(Segment([0], [0.0], [0], "stop", 4, 0, "a"), sent=9)


def test_a_request_says_from_where() -> None:
    body = request_body("r", [1, 2], SamplingParams(4, experts_from=1), 4, 0)
    assert (body["return_routed_experts"], body["routed_experts_start_len"]) == (True, 1)
    assert "return_routed_experts" not in request_body("r", [1, 2], SamplingParams(4), 4, 0)


def test_servers_of_a_run_are_started_so_that_they_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.engines.sglang.make.find_python", lambda given: sys.executable)
    config = build({"engine": {"kind": "sglang", "device": "cpu"}, "learner": {"routing_replay": True}})
    assert FLAG in server_command(config).arguments
    assert FLAG not in server_command(build({"engine": {"kind": "sglang", "device": "cpu"}})).arguments


@pytest.mark.xdist_group("the fake SGLang server")
def test_a_server_that_does_not_tell_is_refused(served: Any) -> None:
    server = served("fake")
    config = build({"engine": {"kind": "sglang", "urls": [server.url]}, "learner": {"routing_replay": True}})
    with pytest.raises(ConfigError, match=r"learner.routing_replay: .* has no experts; set it to false"):
        make_sglang(config, server.model)


@pytest.mark.xdist_group("the fake SGLang server")
def test_a_server_without_the_flag_is_refused(served: Any, tmp_path: Path, given: Any) -> None:
    given.build_model("qwen3_moe").save_pretrained(tmp_path)
    command = ServerCommand(sys.executable, str(FAKE_SERVER), (), {"OMP_NUM_THREADS": "1"})
    server = ServerProcess(command, str(tmp_path), tmp_path / "server.log")
    try:
        server.wait_ready()
        config = build({"engine": {"kind": "sglang", "urls": [server.url]}, "learner": {"routing_replay": True}})
        with pytest.raises(ConfigError, match=f"does not tell experts: start it with {FLAG}, or set it to false"):
            make_sglang(config, str(tmp_path))
    finally:
        server.close()
