"""Which weights does a server run? Checksums of its parameters against the learner's, or a probe's logprobs.

A server can report success and run the old weights; a weight that never arrived looks like staleness for weeks.
The checksum of SGLang's `/weights_checker` is, on a CPU, the first 16 hex digits of the SHA-256 of a parameter's bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agentgym.engines.sglang.client import Missing, ServerClient
from agentgym.engines.sglang.facts import ServerFacts
from agentgym.errors import EngineFault, WeightMismatch
from agentgym.weights import WeightProof

if TYPE_CHECKING:
    import torch

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Servers hold these projections as one parameter, one below the other."""
VOCABULARY = ("embed_tokens.weight", "lm_head.weight")
WIDENED, DEEPENED = ("gate_proj.weight", "up_proj.weight"), ("down_proj.weight",)


def digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[str, ...]]:
    """By the server's name of each parameter, the checksums that are right: as it is, and filled up with zeros where a
    server would do that.

    tensors: under the names of a checkpoint, in the type that the server computes in.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, parts in _grouped(tensors).items():
        found[name] = (_digest([tensors[part] for part in parts]),)
        filled = [_filled(part, tensors[part]) for part in parts]
        if any(tensor is not tensors[part] for tensor, part in zip(filled, parts, strict=True)):
            found[name] += (_digest(filled),)
    return found


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(_bytes(tensor))
    return hasher.hexdigest()[:16]


def _filled(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with the zeros that a server adds to it: rows of the vocabulary, or of an MLP's width on a CPU."""
    import torch

    if name.endswith(VOCABULARY):
        rows, columns = -tensor.shape[0] % 64, 0
    elif name.endswith(WIDENED):
        rows, columns = -tensor.shape[0] % 32, 0
    elif name.endswith(DEEPENED):
        rows, columns = 0, -tensor.shape[1] % 32
    else:
        return tensor
    if not rows and not columns:
        return tensor
    return torch.nn.functional.pad(tensor.detach(), (0, columns, 0, rows))


def _grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """The server's parameter -> the checkpoint's tensors that it is made of, in its order."""
    known = list(names)
    groups: dict[str, list[str]] = {}
    for name in known:
        parts = name.split(".")
        for fused, members in FUSED.items():
            if len(parts) > 1 and parts[-2] in members:
                siblings = [".".join([*parts[:-2], member, parts[-1]]) for member in members]
                if all(sibling in known for sibling in siblings):
                    groups[".".join([*parts[:-2], fused, parts[-1]])] = siblings
                    break
        else:
            groups[name] = [name]
    return groups


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    bytes_of: Any = flat.view(torch.uint8).numpy()
    return memoryview(bytes_of)


async def prove(client: ServerClient, facts: ServerFacts, proof: WeightProof, version: int) -> str:
    """Hold a server to `proof`: "checksum" or "logprobs", as it was done. Raises `WeightMismatch` naming the server and
    the version, and `EngineFault` where neither can be."""
    if facts.on_cpu and facts.devices == 1 and proof.digests:
        checksums = await _checksums(client)
        if checksums is not None and set(checksums) <= set(proof.digests) | _tied(checksums):
            _compare(client, proof, checksums, version)
            return "checksum"
    if not proof.logprobs:
        raise EngineFault(f"{client.name}: its weights cannot be proven: it gives no checksums that can be compared")
    await _probe(client, proof, version)
    return "logprobs"


def _tied(checksums: Mapping[str, str]) -> set[str]:
    """A tied head has the embedding's bytes, under a name of its own where a server lists it."""
    return {"lm_head.weight"} if "lm_head.weight" in checksums else set()


async def _checksums(client: ServerClient) -> dict[str, str] | None:
    try:
        answer = await client.post("weights_checker", {"action": "checksum"})
    except Missing:
        return None
    ranks = answer.get("ranks") if isinstance(answer, dict) else None
    if not ranks or len(ranks) != 1:
        return None
    return {str(name): str(digest) for name, digest in ranks[0]["checksums"].items()}


def _compare(client: ServerClient, proof: WeightProof, checksums: Mapping[str, str], version: int) -> None:
    expected: dict[str, Any] = dict(proof.digests)
    if "lm_head.weight" in checksums and "lm_head.weight" not in expected:
        expected["lm_head.weight"] = expected.get("model.embed_tokens.weight", ())
    wrong = [name for name, digest in checksums.items() if digest not in expected[name]]
    absent = [name for name in proof.digests if name not in checksums and name != "lm_head.weight"]
    if wrong or absent:
        count, named = len(wrong) + len(absent), ", ".join([*wrong, *absent][:3])
        raise WeightMismatch(
            f"{client.name}: does not run the weights of version {version} that it was sent: {count} of "
            f"{len(proof.digests)} parameters differ ({named}, ...)"
        )


async def _probe(client: ServerClient, proof: WeightProof, version: int) -> None:
    body = {
        "input_ids": list(proof.ids),
        "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
        "return_logprob": True,
        "logprob_start_len": 0,
    }
    answer = await client.post("generate", body)
    rows = answer["meta_info"]["input_token_logprobs"][1:]
    gap = max(abs(float(row[0]) - mine) for row, mine in zip(rows, proof.logprobs, strict=True))
    if not gap <= proof.tolerance:
        raise WeightMismatch(
            f"{client.name}: does not run the weights of version {version} that it was sent: its logprobs are "
            f"{gap:.2g} from the learner's (at most {proof.tolerance:g} is allowed)"
        )
