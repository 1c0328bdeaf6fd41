"""A server that speaks SGLang's HTTP protocol, with our own engine underneath: its tokens and logprobs are true.

    python fake_server.py --model-path DIR --port P [--release 0.5.17] [--fault lose-updates|slow-updates|hang|no-start]

It decodes token by token, so that pauses, aborts and updates fall between two tokens as on the real one; it takes
weights from disk and by gloo broadcast, and proves them by the same checksums. `--release 0.5.17` leaves out what that
one lacks. The contract tests run on this and on a real server alike.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import copy
import hashlib
import os
import signal
import sys
import threading
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import uvicorn
from safetensors.torch import load_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentgym.engines.local import LocalEngine
from agentgym.errors import EngineFault, ModelError
from agentgym.types import SamplingParams
from agentgym.weights import WeightUpdate

OLD = "0.5.17"
PACE = 0.003
"""Seconds a token takes at least: what is to be interrupted must not be over at once."""
LACKS = ("/begin_weight_update", "/end_weight_update", "/ready", "/model_info", "/server_info")
"""What the old release does not have (the last two under another name)."""


class FakeServer:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        tells = options.enable_return_routed_experts
        self.engine = LocalEngine.from_pretrained(options.model_path, slots=32, routing=tells)
        self.model: Any = self.engine._runner.model
        self.eos = self.model.config.eos_token_id
        self.context = int(self.model.config.max_position_embeddings)
        self.model_path, self.label = options.model_path, "default"
        self.running = asyncio.Event()
        self.running.set()
        self.admitting = asyncio.Event()
        """Requests that come while it is paused wait, as the real server's do."""
        self.admitting.set()
        self.aborted: set[str] = set()
        self.live: dict[str, Any] = {}
        self.session = False
        self.groups: dict[str, Any] = {}
        self.updates = 0
        self.memory = "whole"

    # ---- generation ----

    async def generate(self, request: Request) -> Response:
        body = await request.json()
        ids = body.get("input_ids")
        if not ids:
            return _refused("input_ids cannot be empty.")
        if len(ids) >= self.context - 6:
            return _refused(f"The input ({len(ids)} tokens) is longer than the model's context length.")
        if self.options.fault == "hang":
            await asyncio.sleep(3600)
        if self.memory != "whole":
            os._exit(1)  # there is nothing to sample with
        rid = body.get("rid") or os.urandom(8).hex()
        await self.running.wait()
        await self.admitting.wait()
        self.live[rid] = None
        try:
            return JSONResponse(await self._sample(rid, [int(i) for i in ids], body))
        except EngineFault as e:
            return _refused(str(e))
        finally:
            del self.live[rid]
            self.aborted.discard(rid)
            await self.engine.release(rid)

    async def _sample(self, rid: str, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        sampling = body.get("sampling_params") or {}
        limit = min(int(sampling.get("max_new_tokens", 128)), self.context - 1 - len(ids))
        stops = {self.eos, *(sampling.get("stop_token_ids") or ())}
        asked = body.get("return_routed_experts") and self.options.enable_return_routed_experts
        since = int(body.get("routed_experts_start_len", 0)) if asked else None
        params = SamplingParams(1, float(sampling.get("temperature", 1.0)), (), sampling.get("sampling_seed"), since)
        experts: Any = None
        out: list[int] = []
        rows: list[list[Any]] = []
        labels: list[str] = []
        reason: dict[str, Any] = {"type": "length", "length": limit}
        while len(out) < limit:
            await self.running.wait()
            if rid in self.aborted:
                reason = {"type": "abort", "message": "Abort in waiting queue"}
                break
            label = self.label
            done = await self.engine.generate(ids + out, params, session=rid)
            await asyncio.sleep(PACE)
            token, experts = int(done.ids[0]), done.experts
            out.append(token)
            rows.append([float(done.logprobs[0]), token, None])
            labels.append(label)
            if token in stops:
                reason = {"type": "stop", "matched": token}
                break
        meta: dict[str, Any] = {
            "id": rid,
            "finish_reason": reason,
            "prompt_tokens": len(ids),
            "completion_tokens": len(out),
            "cached_tokens": 0,
            "weight_version": labels[-1] if labels else self.label,
            "e2e_latency": 0.0,
        }
        if body.get("return_logprob"):
            meta["output_token_logprobs"] = rows
            if body.get("logprob_start_len", -1) == 0:
                meta["input_token_logprobs"] = self._prompt_logprobs(ids)
        if self.options.release != OLD:
            meta["weight_versions"] = _spans(labels or [self.label])
        if experts is not None:  # of all tokens that were run, from the one asked for on
            meta["routed_experts"] = base64.b64encode(experts.astype(np.int32).tobytes()).decode()
        return {"output_ids": out, "meta_info": meta}

    @torch.no_grad()
    def _prompt_logprobs(self, ids: list[int]) -> list[list[Any]]:
        from transformers import AutoModelForCausalLM

        # the engine has exchanged its model's attention for its own
        config = copy.deepcopy(self.model.config)
        plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        plain.load_state_dict(self.model.state_dict())
        table = plain(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return [[None, ids[0], None], *([float(table[i, t]), t, None] for i, t in enumerate(ids[1:]))]

    async def abort(self, request: Request) -> Response:
        body = await request.json()
        self.aborted |= set(self.live) if body.get("abort_all") else {body.get("rid")} & set(self.live)
        return Response(status_code=200)

    async def pause(self, request: Request) -> Response:
        mode = (await request.json() if await request.body() else {}).get("mode", "abort")
        self.admitting.clear()
        if mode == "abort":
            self.aborted |= set(self.live)
            while self.live:
                await asyncio.sleep(0.005)
        self.running.clear()
        while self.engine.stats["running"]:  # the step under way
            await asyncio.sleep(0.001)
        self.mode = mode
        return JSONResponse({"status": "ok"})

    async def resume(self, request: Request) -> Response:
        self.running.set()
        self.admitting.set()
        return JSONResponse({"status": "ok"})

    # ---- weights ----

    async def from_disk(self, request: Request) -> Response:
        body = await request.json()
        lost = self.options.fault == "lose-updates"
        if self.options.fault == "slow-updates":
            await asyncio.sleep(0.2)
        try:
            if not lost:
                await self._load(_on_disk(body["model_path"]))
        except (ModelError, OSError) as e:
            return JSONResponse({"success": False, "message": str(e)}, 400)
        self.model_path = body["model_path"]
        return self._loaded(body)

    async def begin(self, request: Request) -> Response:
        if self.session:
            return JSONResponse({"success": False, "message": "a weight-update session is already open"}, 400)
        self.session = True
        return JSONResponse({"success": True, "message": "Success"})

    async def end(self, request: Request) -> Response:
        if not self.session:
            return JSONResponse({"success": False, "message": "no weight-update session is open"}, 400)
        self.session = False
        return JSONResponse({"success": True, "message": "Success"})

    async def init_group(self, request: Request) -> Response:
        body = await request.json()
        self.groups[body["group_name"]] = await asyncio.to_thread(_join, body)
        return JSONResponse({"success": True, "message": "ok"})

    async def destroy_group(self, request: Request) -> Response:
        group = self.groups.pop((await request.json())["group_name"], None)
        if group is not None:
            torch.distributed.destroy_process_group(group)
        return JSONResponse({"success": True, "message": "ok"})

    async def from_distributed(self, request: Request) -> Response:
        body = await request.json()
        if not self.session and self.options.release != OLD:
            return JSONResponse({"success": False, "message": "must run between begin and end"}, 400)
        tensors = await asyncio.to_thread(_receive, self.groups[body["group_name"]], body)
        own = self.model.state_dict()
        if self.options.fault != "lose-updates":
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
            await self._load(WeightUpdate(0, tensors=dict(own)))
        return self._loaded(body)

    async def _load(self, update: WeightUpdate) -> None:
        await self.engine.update_weights(update)

    def _loaded(self, body: dict[str, Any]) -> Response:
        self.label = body.get("weight_version") or self.label
        self.updates += 1
        if self.memory == "released":
            os._exit(1)
        self.memory = "whole"
        print(f"memory: weights {self.label.partition('-')[0]}", flush=True)
        if body.get("flush_cache", True) and self.live and self.running.is_set() is False and self.mode == "in_place":
            return JSONResponse(
                {"success": False, "message": "Weights were updated, but the cache was not flushed"}, 400
            )
        return JSONResponse({"success": True, "message": "Succeeded to update model weights."})

    # ---- its GPU's memory ----

    async def release_memory(self, request: Request) -> Response:
        if not self.options.enable_memory_saver:
            return _refused("the memory saver is not enabled")
        if self.live or self.memory != "whole":
            os._exit(1)  # as an assertion of the real one's scheduler does
        self.memory = "released"
        print("memory: released", flush=True)
        return Response(status_code=200)

    async def resume_memory(self, request: Request) -> Response:
        if self.memory != "released":
            os._exit(1)
        self.memory = "empty"
        print("memory: resumed", flush=True)
        return Response(status_code=200)

    async def check(self, request: Request) -> Response:
        checksums = {name: _digest(tensor) for name, tensor in _server_tensors(self.model.state_dict()).items()}
        return JSONResponse({"success": True, "message": "Success.", "ranks": [{"checksums": checksums}]})

    # ---- what it is ----

    async def model_info(self, request: Request) -> Response:
        return JSONResponse(
            {
                "model_path": self.model_path,
                "is_generation": True,
                "weight_version": self.label,
                "model_type": self.model.config.model_type,
            }
        )

    async def server_info(self, request: Request) -> Response:
        return JSONResponse(
            {
                "version": self.options.release,
                "tp_size": 1,
                "device": "cpu",
                "max_req_input_len": self.context - 6,
                "enable_return_routed_experts": self.options.enable_return_routed_experts,
            }
        )

    async def health(self, request: Request) -> Response:
        return Response(status_code=200)

    async def health_generate(self, request: Request) -> Response:
        if self.options.fault == "hang":
            await asyncio.sleep(3600)
        return Response(status_code=200)

    # ---- for tests alone ----

    async def test_state(self, request: Request) -> Response:
        return JSONResponse({"serves": self.running.is_set() and self.admitting.is_set(), "label": self.label})

    async def test_hang(self, request: Request) -> Response:
        self.options.fault = "hang"
        return Response(status_code=200)

    async def die(self, request: Request) -> Response:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def app(self) -> Starlette:
        routes = {
            "/generate": self.generate, "/abort_request": self.abort, "/pause_generation": self.pause,
            "/continue_generation": self.resume, "/update_weights_from_disk": self.from_disk,
            "/begin_weight_update": self.begin, "/end_weight_update": self.end, "/weights_checker": self.check,
            "/init_weights_update_group": self.init_group, "/destroy_weights_update_group": self.destroy_group,
            "/update_weights_from_distributed": self.from_distributed, "/model_info": self.model_info,
            "/server_info": self.server_info, "/get_model_info": self.model_info, "/get_server_info": self.server_info,
            "/health": self.health, "/ready": self.health, "/health_generate": self.health_generate,
            "/release_memory_occupation": self.release_memory, "/resume_memory_occupation": self.resume_memory,
            "/test_state": self.test_state, "/test_hang": self.test_hang,
        }  # fmt: skip
        lacks = LACKS if self.options.release == OLD else ()
        told = [Route(path, at, methods=["GET", "POST"]) for path, at in routes.items() if path not in lacks]
        return Starlette(routes=told)


def _on_disk(folder: str) -> WeightUpdate:
    """A checkpoint; of a mixture its experts have other names there than in memory."""
    tensors = load_file(f"{folder}/model.safetensors")
    saved_otherwise = any(".experts.0." in name for name in tensors)
    return WeightUpdate(0, path=folder) if saved_otherwise else WeightUpdate(0, tensors=tensors)


def _refused(message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, 400)


def _spans(labels: list[str]) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = []
    for i, label in enumerate(labels):
        if spans and spans[-1]["version"] == label:
            spans[-1]["end"] = i + 1
        else:
            spans.append({"version": label, "start": i, "end": i + 1})
    return spans


def _server_tensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the real server holds them: projections fused, the vocabulary filled up to 64 rows, an MLP's width to 32."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name == "lm_head.weight" and torch.equal(tensor, state["model.embed_tokens.weight"]):
            continue
        if ".q_proj." in name:
            parts = [state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            found[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
        elif ".gate_proj." in name:
            parts = [_rows(state[name.replace("gate_proj", part)], 32) for part in ("gate_proj", "up_proj")]
            found[name.replace("gate_proj", "gate_up_proj")] = torch.cat(parts)
        elif ".down_proj." in name:
            found[name] = _rows(tensor.T, 32).T.contiguous()
        elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
            found[name] = _rows(tensor, 64)
        elif ".mlp.experts." in name:
            found[name.replace("gate_up_proj", "w13_weight").replace("down_proj", "w2_weight")] = tensor
        elif not any(part in name for part in (".k_proj.", ".v_proj.", ".up_proj.")):
            found[name] = tensor
    return found


def _rows(tensor: torch.Tensor, multiple: int) -> torch.Tensor:
    more = -tensor.shape[0] % multiple
    return torch.cat([tensor, tensor.new_zeros(more, *tensor.shape[1:])]) if more else tensor


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def _join(body: dict[str, Any]) -> Any:
    from torch.distributed.distributed_c10d import PrefixStore, _new_process_group_helper, _world

    patience = timedelta(seconds=60)
    store = torch.distributed.TCPStore(
        body["master_address"], body["master_port"], body["world_size"], is_master=False, timeout=patience
    )
    group, _ = _new_process_group_helper(
        body["world_size"], body["rank_offset"], [], torch.distributed.Backend(body["backend"]),
        PrefixStore(body["group_name"], store), group_name=body["group_name"], backend_options=None, timeout=patience,
    )  # fmt: skip
    _world.pg_group_ranks[group] = {i: i for i in range(body["world_size"])}
    return group


def _receive(group: Any, body: dict[str, Any]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, dtype, shape in zip(body["names"], body["dtypes"], body["shapes"], strict=True):
        tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
        torch.distributed.broadcast(tensors[name], src=0, group=group)
    return tensors


def _end_with_parent() -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: list[str]) -> None:
    _end_with_parent()
    run(arguments)


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--release", default="0.5.23")
    parser.add_argument("--fault", default="")
    parser.add_argument("--enable-memory-saver", action="store_true")
    parser.add_argument("--enable-return-routed-experts", action="store_true")
    options, _ = parser.parse_known_args(arguments)
    if options.fault == "no-start":
        sys.exit("CUDA out of luck")

    async def serve() -> None:
        app = FakeServer(options).app()
        await uvicorn.Server(uvicorn.Config(app, options.host, options.port, log_level="warning")).serve()

    asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1:])
