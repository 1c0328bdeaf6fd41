"""Tiny random models of many families, the plain forward that every engine is held to, and engines to hold to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentgym.engines.local import LocalEngine
from agentgym.engines.process import ProcessEngine
from agentgym.engines.sglang.commands import cpu_command
from agentgym.engines.sglang.engine import SGLangEngine
from agentgym.engines.sglang.interpreter import find_python
from agentgym.engines.sglang.layout import read_layout
from agentgym.engines.sglang.process import ServerCommand, ServerProcess
from agentgym.protocols import Engine
from agentgym.types import Completion, SamplingParams

FAKE_SERVER = Path(__file__).parent / "sglang" / "fake_server.py"
VOCAB, WINDOW, SLOTS, CONTEXT = 97, 8, 6, 64

_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,  # larger than usual: a model of near-uniform logits would hide mistakes
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {"use_sliding_window": False, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "llama": {"tie_word_embeddings": False, "attention_bias": True},
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {"sliding_window": WINDOW, "layer_types": _ALTERNATING, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": _ALTERNATING, "query_pre_attn_scalar": 8},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": WINDOW,
        "layer_types": _ALTERNATING,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
OUT_OF_PROCESS = ("qwen3",)  # a process costs seconds to start; the engine in it is the same

# the promises of an engine that a server keeps too; the others are about slots and sessions, which are its own affair
SERVED = {
    "test_stop_ids_end_a_completion_and_are_part_of_it",
    "test_a_stop_at_the_last_allowed_token_is_a_stop",
    "test_the_arrays_have_the_types_of_the_contract",
    "test_a_full_context_ends_with_length",
    "test_a_prompt_without_room_yields_nothing",
    "test_bad_ids_are_a_fault_that_harms_nobody_else",
    "test_two_calls_of_one_session_at_once_are_both_right",
    "test_a_cancelled_call_frees_its_slot",
    "test_engines_outlive_an_event_loop",
    "test_weights_that_do_not_fit_change_nothing",
    "test_updates_that_say_too_little_are_refused",
    "test_one_name_of_tied_weights_is_enough",
    "test_weights_from_a_folder",
    "test_logprobs_with_turns_joins_leaves_and_evictions",
    "test_a_changed_past_is_computed_anew",
    "test_greedy_is_argmax_at_temperature_one",
    "test_logprobs_are_of_the_sampling_distribution",
    "test_a_seed_samples_the_same_alone_and_in_a_crowd",
}
PROCESS = pytest.param("process", marks=pytest.mark.xdist_group("engine process qwen3"))
FAKE = pytest.param("fake", marks=pytest.mark.xdist_group("the fake SGLang server"))
REAL = pytest.param("sglang", marks=[pytest.mark.sglang, pytest.mark.timeout(900)])
CPU_ARGUMENTS = ("--max-total-tokens", "8192", "--skip-tokenizer-init", "--random-seed", "7")


@cache
def _weights(family: str, seed: int) -> tuple[Any, dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **(_SHAPE | FAMILIES[family]))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms, biases and sinks start out as constants
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def build_model(family: str, seed: int = 0) -> Any:
    """A model of its own (engines own theirs) with the weights of (family, seed)."""
    config = AutoConfig.for_model(family, **(_SHAPE | FAMILIES[family]))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    model.load_state_dict(weights(family, seed))
    return model


def weights(family: str, seed: int) -> dict[str, torch.Tensor]:
    return _weights(family, seed)[1]


@torch.no_grad()
def all_logprobs(family: str, seed: int, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities [len(ids), vocab] by the library's own eager forward of the whole sequence."""
    model = _weights(family, seed)[0]
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return (logits.float() / temperature).log_softmax(-1)


def gap(family: str, seed: int, prompt: list[int], completion: Completion, temperature: float = 1.0) -> float:
    """Largest difference between a completion's logprobs and those of the plain forward."""
    ids = completion.ids.tolist()
    if not ids:
        return 0.0
    table = all_logprobs(family, seed, prompt + ids, temperature)[len(prompt) - 1 : -1]
    expected = table[torch.arange(len(ids)), torch.tensor(ids)]
    return float((expected - torch.from_numpy(completion.logprobs)).abs().max())


@dataclass
class Episode:
    """A conversation with an engine: random context, a completion, more context, ..."""

    engine: Engine
    seed: int
    turns: int = 3
    session: bool = True
    temperature: float = 1.0
    played: list[tuple[list[int], Completion]] = field(default_factory=list)

    async def play(self) -> Episode:
        rng = np.random.default_rng(self.seed)
        name = f"episode-{self.seed}" if self.session else None
        ids: list[int] = rng.integers(3, VOCAB, rng.integers(1, 16)).tolist()
        for turn in range(self.turns):
            limit, stops = int(rng.integers(1, 10)), (int(rng.integers(3, VOCAB)), 5, 6)
            params = SamplingParams(limit, self.temperature, stops, seed=1000 * self.seed + turn)
            completion = await self.engine.generate(list(ids), params, session=name)
            self.played.append((list(ids), completion))
            ids += completion.ids.tolist() + rng.integers(3, VOCAB, rng.integers(1, 7)).tolist()
            if rng.random() < 0.3:
                await asyncio.sleep(0.001 * rng.random())  # a slow tool
        if name is not None:
            await self.engine.release(name)
        return self


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `family` and `mode` runs over all pairs; one that asks for `mode` alone, over both modes."""
    served = [FAKE, REAL] if metafunc.function.__name__ in SERVED else []
    if "family" in metafunc.fixturenames:
        pairs: list[Any] = [(f, "in-process") for f in FAMILIES] + [
            pytest.param(f, "process", marks=pytest.mark.xdist_group(f"engine process {f}")) for f in OUT_OF_PROCESS
        ]
        pairs += [pytest.param("qwen3", param.values[0], marks=param.marks) for param in served]
        metafunc.parametrize(("family", "mode"), pairs)
    elif "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", ["in-process", PROCESS, *served])
    elif "server" in metafunc.fixturenames:
        metafunc.parametrize("server", [FAKE, REAL], indirect=True)


@pytest.fixture(scope="session")
def given() -> SimpleNamespace:
    """The builders above (test files cannot import each other)."""
    return SimpleNamespace(
        Episode=Episode, all_logprobs=all_logprobs, build_model=build_model, gap=gap, new_engine=new_engine,
        weights=weights, serve=serve, served_engine=served_engine, VOCAB=VOCAB,
        WINDOW=WINDOW, SLOTS=SLOTS, CONTEXT=CONTEXT,
    )  # fmt: skip


@pytest.fixture(scope="session")
def engine_of(
    tmp_path_factory: pytest.TempPathFactory, served: Callable[[str], ServerProcess]
) -> Iterator[Callable[..., Engine]]:
    """(family, mode) -> an engine of 6 slots and 64 tokens, shared by the tests; they leave weights 0 behind."""
    engines: dict[tuple[str, str], Engine] = {}

    def get(family: str, mode: str) -> Engine:
        key = (family, mode)
        if key not in engines:
            engines[key] = (
                served_engine(served(mode))
                if mode in ("fake", "sglang")
                else new_engine(family, mode, tmp_path_factory.mktemp("model"))
            )
        return engines[key]

    yield get
    for engine in engines.values():
        asyncio.run(engine.aclose())


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ServerProcess]]:
    """kind ("fake" or "sglang") -> a server on the qwen3 of weights 0, shared by the tests."""
    servers: dict[str, ServerProcess] = {}

    def get(kind: str) -> ServerProcess:
        if kind not in servers:
            servers[kind] = serve(kind, tmp_path_factory.mktemp("served"))
        return servers[kind]

    yield get
    for server in servers.values():
        server.close()


@pytest.fixture
def server(request: pytest.FixtureRequest, served: Callable[[str], ServerProcess]) -> ServerProcess:
    """The fake server, and in another run of the test a real one."""
    return served(request.param)


def serve(kind: str, folder: Path, *arguments: str) -> ServerProcess:
    """A server of its own on the qwen3 of weights 0, ready; close it."""
    model = folder / "model"
    build_model("qwen3").save_pretrained(model)
    if kind == "fake":
        command = ServerCommand(sys.executable, str(FAKE_SERVER), arguments, {"OMP_NUM_THREADS": "1"})
    else:
        command = cpu_command(find_python(), 1, (*CPU_ARGUMENTS, *arguments))
    server = ServerProcess(command, str(model), folder / "server.log")
    server.wait_ready()
    return server


def served_engine(server: ServerProcess, **options: Any) -> SGLangEngine:
    return SGLangEngine(server.url, **{"layout": read_layout(server.model), "max_context": CONTEXT, **options})


def new_engine(family: str, mode: str, folder: Path, **options: Any) -> Engine:
    settings = {"slots": SLOTS, "max_context": CONTEXT, **options}
    if mode == "in-process":
        return LocalEngine(build_model(family), **settings)
    build_model(family).save_pretrained(folder)
    return ProcessEngine.from_pretrained(str(folder), **settings)
