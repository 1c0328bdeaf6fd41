"""A request for tokens and its answer: what is sent to `/generate`, and what is read from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentgym.errors import EngineFault
from agentgym.types import SamplingParams

NEUTRAL = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
}
"""Said in every request, so that no default of a server or a model bends the distribution that logprobs are of."""
SEED_BITS = (1 << 62) - 1


@dataclass(frozen=True, slots=True)
class Segment:
    """What one request sampled: part of a completion where it was interrupted."""

    ids: list[int]
    logprobs: list[float]
    versions: list[int]
    reason: Literal["stop", "length", "abort"]
    prompt_tokens: int
    cached_tokens: int
    experts: str = ""
    """Those of the tokens from the one asked for to the last but one, base64; empty where they are not told."""


def request_body(rid: str, ids: Sequence[int], params: SamplingParams, limit: int, seed: int) -> dict[str, Any]:
    """`limit`: tokens to sample; `seed`: used by servers with --enable-deterministic-inference."""
    more: dict[str, Any] = {}
    if params.experts_from is not None:
        more = {"return_routed_experts": True, "routed_experts_start_len": params.experts_from}
    sampling = {
        **NEUTRAL,
        "max_new_tokens": limit,
        "temperature": params.temperature,
        "stop_token_ids": list(params.stop_ids),
        "sampling_seed": seed & SEED_BITS,
    }
    return {"rid": rid, "input_ids": list(ids), "sampling_params": sampling, "return_logprob": True, **more}


def read_segment(answer: Any, version_of: Callable[[str], int]) -> Segment:
    """Read an answer of `/generate`; `version_of` knows the policy version behind a label of weights.

    Raises `EngineFault` for what is no such answer, or holds logprobs that are no numbers.
    """
    try:
        meta = answer["meta_info"]
        ids = [int(i) for i in answer["output_ids"]]
        rows = meta.get("output_token_logprobs") or []
        logprobs = [float("nan") if row[0] is None else float(row[0]) for row in rows]
        reason = (meta.get("finish_reason") or {}).get("type", "stop")
        told = [int(row[1]) for row in rows]
        prompt, cached = int(meta.get("prompt_tokens") or 0), int(meta.get("cached_tokens") or 0)
        experts = str(meta.get("routed_experts") or "")
        versions = _versions(meta, len(ids), version_of)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as e:
        raise EngineFault(f"an answer that cannot be read ({type(e).__name__}: {e}): is it an SGLang server?") from None
    if told != ids:
        raise EngineFault(f"logprobs of {len(told)} tokens came with {len(ids)} sampled ones, or of other tokens")
    if not all(map(math.isfinite, logprobs)):
        raise EngineFault("the model's logits are NaN or infinite")
    if reason not in ("stop", "length", "abort"):
        reason = "stop"
    return Segment(ids, logprobs, versions, reason, prompt, cached, experts)


def _versions(meta: Mapping[str, Any], count: int, version_of: Callable[[str], int]) -> list[int]:
    """The version of each token: from spans, or from the one label of a server that never changes weights under a
    request (see `refit`)."""
    spans = meta.get("weight_versions")
    if spans is None:
        return [version_of(str(meta["weight_version"]))] * count if count else []
    versions: list[int] = []
    for span in spans:
        if int(span["start"]) != len(versions):
            raise ValueError(f"weight_versions has a gap at token {len(versions)}")
        versions += [version_of(str(span["version"]))] * (min(int(span["end"]), count) - len(versions))
    if len(versions) != count:
        raise ValueError(f"weight_versions tells of {len(versions)} of {count} tokens")
    return versions
