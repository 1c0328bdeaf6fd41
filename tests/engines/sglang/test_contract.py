"""What an SGLang server and this engine promise each other, on the fake server and (make test-sglang) on a real one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from agentgym.engines.sglang.proof import digests, prove
from agentgym.errors import EngineFault, WeightMismatch
from agentgym.protocols import WeightSync
from agentgym.trainers.learner import Learner, LearnerOptions
from agentgym.trainers.weights.disk import DiskSync
from agentgym.trainers.weights.distributed import DistributedSync
from agentgym.trainers.weights.proof import LearnerProof
from agentgym.types import Completion, SamplingParams
from agentgym.weights import WeightProof

TOLERANCE = 1e-4
SMALL_BUCKET = 20_000


def parameters(given: Any, seed: int) -> dict[str, torch.Tensor]:
    return dict(given.build_model("qwen3", seed).named_parameters())


@pytest.fixture(params=["disk", "distributed"])
def sync(request: pytest.FixtureRequest, server: Any, tmp_path: Path) -> Any:
    made: WeightSync = (
        DiskSync(tmp_path / "weights", server.model)
        if request.param == "disk"
        else DistributedSync(bucket_bytes=SMALL_BUCKET)
    )
    yield made
    made.close()


def test_it_says_what_it_is(server: Any, given: Any) -> None:
    facts = given.served_engine(server).facts
    assert facts.spans
    assert (facts.devices, facts.on_cpu) == (1, True)
    assert facts.max_prompt == 122  # of the model's 128 positions


def test_logprobs_versions_and_checksums_after_every_update(server: Any, given: Any, sync: Any) -> None:
    engine = given.served_engine(server)

    async def play() -> None:
        for version, seed in ((1, 1), (2, 0), (3, 1), (4, 0)):
            await engine.update_weights(sync.publish(version, parameters(given, seed)))
            done = await engine.generate([3, 4, version], SamplingParams(20, seed=version))
            assert set(done.versions.tolist()) == {version} == {engine.version}
            assert given.gap("qwen3", seed, [3, 4, version], done) < TOLERANCE
        await engine.aclose()

    asyncio.run(play())


@pytest.mark.parametrize("pause", ["retract", "abort"])
def test_requests_under_way_go_on_under_new_weights(server: Any, given: Any, sync: Any, pause: str) -> None:
    engine = given.served_engine(server, pause=pause, max_context=120)
    lengths = SamplingParams(110)

    async def play(wait: float) -> tuple[int, list[Completion]]:
        first = engine.version
        update = sync.publish(first + 1, parameters(given, 1))
        running = [asyncio.create_task(engine.generate([3 + i] * (i + 1), lengths)) for i in range(4)]
        await asyncio.sleep(wait)
        await engine.update_weights(update)
        done = await asyncio.gather(*running)
        await engine.update_weights(sync.publish(first + 2, parameters(given, 0)))
        return first, done

    async def until_spanned() -> tuple[int, list[Completion]]:
        try:
            for wait in (0.15, 0.05, 0.3, 0.02, 0.1, 0.6, 0.2, 0.01):  # how fast a server is depends on the machine
                first, done = await play(wait)
                if any(len(set(completion.versions.tolist())) == 2 for completion in done):
                    return first, done
            raise AssertionError("no sequence spanned the update")
        finally:
            await engine.aclose()

    first, done = asyncio.run(until_spanned())
    assert all(len(completion.ids) == 110 for completion in done)
    for i, completion in enumerate(done):
        prompt, versions = [3 + i] * (i + 1), completion.versions
        assert (np.diff(versions) >= 0).all()
        for seed, version in ((0, first), (1, first + 1)):  # each token by the weights that sampled it
            table = given.all_logprobs("qwen3", seed, prompt + completion.ids.tolist())[len(prompt) - 1 : -1]
            chosen = table.gather(1, torch.from_numpy(completion.ids.astype(np.int64))[:, None])[:, 0].numpy()
            mine = versions == version
            np.testing.assert_allclose(completion.logprobs[mine], chosen[mine], atol=TOLERANCE)


def test_kept_caches_need_no_flush(server: Any, given: Any, sync: Any) -> None:
    engine = given.served_engine(server, pause="in_place")

    async def play() -> None:
        long = asyncio.create_task(engine.generate([5], SamplingParams(60)))
        await asyncio.sleep(0.1)
        await engine.update_weights(sync.publish(1, parameters(given, 1)))
        assert len((await long).ids) == 60
        await engine.update_weights(sync.publish(2, parameters(given, 0)))
        await engine.aclose()

    asyncio.run(play())
    # what was sampled with old caches must not be found by later requests
    fresh = given.served_engine(server)
    asyncio.run(fresh.update_weights(sync.publish(3, parameters(given, 0))))
    asyncio.run(fresh.aclose())


def test_other_weights_than_those_meant_are_found_out(server: Any, given: Any, sync: Any) -> None:
    engine = given.served_engine(server)
    nearly = parameters(given, 0)
    with torch.no_grad():
        nearly["model.layers.1.mlp.up_proj.weight"][0, 0] += 1e-6
    update = sync.publish(1, parameters(given, 0))
    asyncio.run(engine.update_weights(update))
    with pytest.raises(WeightMismatch, match=r"version 1 .* 1 of 26 .*layers.1.mlp.gate_up_proj"):
        asyncio.run(prove(engine._client, engine.facts, WeightProof(digests(nearly)), 1))
    asyncio.run(engine.aclose())


def test_a_probe_tells_weights_apart_where_checksums_cannot(server: Any, given: Any) -> None:
    engine = given.served_engine(server)
    proofs = [LearnerProof(Learner(given.build_model("qwen3", seed), LearnerOptions())) for seed in (0, 1)]
    right, wrong = (
        WeightProof({}, made.ids, made.logprobs, made.tolerance)
        for made in (proof(parameters(given, seed)) for seed, proof in enumerate(proofs))
    )
    assert asyncio.run(prove(engine._client, engine.facts, right, 7)) == "logprobs"
    with pytest.raises(WeightMismatch, match=r"version 7 .* its logprobs are"):
        asyncio.run(prove(engine._client, engine.facts, wrong, 7))
    with pytest.raises(EngineFault, match="cannot be proven"):
        asyncio.run(prove(engine._client, engine.facts, WeightProof({}), 7))
    asyncio.run(engine.aclose())


def test_a_stop_token_of_the_models_own_ends_nothing(server: Any, given: Any) -> None:
    engine = given.served_engine(server)

    async def play() -> list[Completion]:
        return await asyncio.gather(*(engine.generate([3 + i], SamplingParams(60, seed=i)) for i in range(24)))

    done = asyncio.run(play())
    assert any(2 in completion.ids.tolist()[:-1] for completion in done)  # the configuration's eos_token_id
    assert all((len(completion.ids), completion.finish_reason) == (60, "length") for completion in done)
    assert max(given.gap("qwen3", 0, [3 + i], c) for i, c in enumerate(done)) < TOLERANCE
    asyncio.run(engine.aclose())


def test_what_is_cancelled_is_aborted_on_the_server(server: Any, given: Any) -> None:
    engine = given.served_engine(server, max_context=120)

    async def play() -> None:
        tasks = [asyncio.create_task(engine.generate([3 + i], SamplingParams(115))) for i in range(12)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        # a flush of the cache is refused as long as anything is under way
        if (await engine._client.get("server_info"))["version"] and server.command.launcher.endswith("launcher.py"):
            for _ in range(40):
                if httpx.post(f"{server.url}/flush_cache", trust_env=False).status_code == 200:
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("requests are still under way")
        await engine.aclose()

    asyncio.run(play())


def test_a_refused_update_leaves_it_serving(server: Any, given: Any, tmp_path: Path) -> None:
    engine = given.served_engine(server, layout=None)
    (tmp_path / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b'{"a":{}}')
    from agentgym.errors import ModelError
    from agentgym.weights import WeightUpdate

    with pytest.raises((EngineFault, ModelError)):
        asyncio.run(engine.update_weights(WeightUpdate(1, path=str(tmp_path))))
    assert engine.version == 0
    done = asyncio.run(engine.generate([3, 4], SamplingParams(5, seed=1)))
    assert given.gap("qwen3", 0, [3, 4], done) < TOLERANCE
    asyncio.run(engine.aclose())
