"""What a server says of itself when it is first asked: everything that is done differently is decided by this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentgym.engines.sglang.client import Missing, ServerClient
from agentgym.errors import EngineFault, ModelError

ONE_TOKEN: dict[str, Any] = {"input_ids": [0], "sampling_params": {"max_new_tokens": 1}}
"""The least that a server can be asked to sample."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    release: str
    """SGLang's version."""
    model_path: str
    model_kind: str
    """The architecture's name, empty where it is not told."""
    label: str
    """The server's name for the weights it runs now (`weight_version`)."""
    spans: bool
    """Whether answers tell which weights sampled which token (`weight_versions`; 0.5.17 does not)."""
    max_prompt: int
    """Tokens that a prompt may have."""
    max_total: int
    """Tokens that prompt and completion may have together."""
    devices: int
    """Ranks that hold a part of the weights each."""
    on_cpu: bool
    tells_experts: bool = False
    """Whether answers can tell the experts that tokens were sent to (--enable-return-routed-experts)."""


def ask_facts(client: ServerClient, *, timeout: float = 30.0) -> ServerFacts:
    """Ask a server (blocking). Raises `EngineFault` where it is not an SGLang server that generates, or is away."""
    model = _either(client, ("model_info", "get_model_info"), timeout)
    server = _either(client, ("server_info", "get_server_info"), timeout)
    if not isinstance(model, dict) or not isinstance(server, dict) or "model_path" not in model:
        raise EngineFault(f"{client.name}: /model_info names no model: is it an SGLang server?")
    if not model.get("is_generation", True):
        raise ModelError(f"{client.name}: serves {model['model_path']}, which embeds and does not generate")
    if not server.get("version"):
        raise EngineFault(f"{client.name}: /server_info names no version of SGLang")
    meta = _sample(client, timeout)
    label = str(model.get("weight_version") or meta.get("weight_version") or "default")
    max_prompt = int(server.get("max_req_input_len") or 0) or 1 << 30
    return ServerFacts(
        release=str(server["version"]),
        model_path=str(model["model_path"]),
        model_kind=str(model.get("model_type") or ""),
        label=label,
        spans=isinstance(meta.get("weight_versions"), list),
        max_prompt=max_prompt,
        max_total=max_prompt + 5,  # the scheduler keeps five places of a request's room for what is sampled
        devices=int(server.get("tp_size") or 1) * int(server.get("pp_size") or 1) * int(server.get("dp_size") or 1),
        on_cpu=server.get("device") == "cpu",
        tells_experts=bool(server.get("enable_return_routed_experts")),
    )


def _either(client: ServerClient, paths: tuple[str, str], timeout: float) -> Any:
    """Newer servers have dropped the prefix of the older name."""
    try:
        return client.ask_now(paths[0], timeout=timeout)
    except Missing:
        return client.ask_now(paths[1], timeout=timeout)


def _sample(client: ServerClient, timeout: float) -> dict[str, Any]:
    """The notes on one sampled token."""
    answer = client.ask_now("generate", {**ONE_TOKEN, "return_logprob": True}, timeout=timeout)
    meta = answer.get("meta_info") if isinstance(answer, dict) else None
    if not isinstance(meta, dict):
        raise EngineFault(f"{client.name}: /generate answers without meta_info: is it an SGLang server?")
    return meta
