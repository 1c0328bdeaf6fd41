"""The model as the learner runs it: micro-batch in, log-probabilities out."""

from __future__ import annotations

import contextlib
import copy
import re
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from agentgym.engines.blocks import blocks_of
from agentgym.engines.mixture import KEY, mixture_of
from agentgym.engines.routing import routes, tap
from agentgym.errors import ConfigError, ModelError
from agentgym.trainers.logprobs import token_logprobs, token_states
from agentgym.trainers.lora import Lora, add_adapters
from agentgym.trainers.micro import Micro
from agentgym.trainers.segments import NAME, leave_untraced, register, stacks_of

_UNSPECIFIC = ("auto", "sdpa")
_NOISE = re.compile(r"dropout|pdrop|layerdrop|drop_path|jitter")
"""Names of rates, in configurations and modules of transformers."""


@dataclass(frozen=True, slots=True)
class Build:
    """What is chosen about the model for the whole run: how it is run, not what it learns."""

    layout: str = "auto"
    """`packed`, `padded`, or auto: packed where the model keeps packed rows apart."""
    attention: str = "auto"
    """A name that transformers knows; auto: ours over packed rows (`segments`)."""
    recompute: bool = False
    compile: bool = False
    lora: Lora = field(default_factory=Lora)
    dtype: str = "float32"
    """What matrix products are computed in; weights are kept in fp32."""
    routing_replay: bool = False
    """Tokens go to the experts that rows tell of."""


class Policy(nn.Module):
    """A transformers causal LM under one `forward`, which is what sharding hooks into.

    `compute`: the type of matrix products where it is not that of the weights.
    """

    def __init__(self, model: Any, compute: torch.dtype | None = None):
        super().__init__()
        self.model = model
        self.compute = compute

    def forward(
        self, micro: Micro, temperature: float, entropy_grad: bool = False, states: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logprobs [N] and entropies [N] of the masked tokens, fp32; or `states`: the hidden states [N, H] that predict
        them, in place of both."""
        with self._precision(micro.ids.device):
            if states:
                hidden = token_states(self.model, micro).float()
                return hidden, hidden
            return token_logprobs(self.model, micro, temperature, entropy_grad=entropy_grad)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if self.compute is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.compute)


def skeleton(kind: type, config: Any, build: Build | None = None) -> Any:
    """A model of a class on the meta device, without weights; `build`: set up as `prepare` has decided."""
    register()  # which the configuration may name
    with torch.device("meta"):
        model: Any = kind(copy.deepcopy(config))
    if build is None:
        return model
    if build.lora.rank:
        add_adapters(model, build.lora)
        for parameter in model.parameters():
            if not parameter.requires_grad:  # only what is trained needs to be kept in fp32
                parameter.data = parameter.data.to(getattr(torch, build.dtype))
    if build.attention != "sdpa":
        model.set_attn_implementation(build.attention)
    _run_as(model, build)
    return model


def prepare(model: Any, build: Build) -> Build:
    """Set up how `model` attends and recomputes; `build` with `auto` decided. Raises `ConfigError`, `ModelError`."""
    if build.recompute and not getattr(model, "supports_gradient_checkpointing", False):
        raise ModelError(f"learner.recompute: {type(model).__name__} cannot recompute; set it to false")
    without_noise(model)
    if build.lora.rank:
        add_adapters(model, build.lora)
    decided = _decided(model, build)
    _run_as(model, build)
    if build.routing_replay:
        _check_routing(model, build)
    return decided


def without_noise(model: Any) -> None:
    """Turn off what makes two passes of the same tokens differ: dropout, layers left out, noise on routers.

    The engine samples without it, and a ratio of probabilities would measure it. In the configuration too, of which
    other ranks and the reference make theirs. The model stays in training mode, which recomputation takes.
    """
    configs = [model.config]
    for config in configs:
        configs += [part for part in vars(config).values() if hasattr(part, "to_diff_dict")]
    for owner in (*configs, *model.modules()):
        for name, value in vars(owner).items():
            if isinstance(value, float) and _NOISE.search(name):
                setattr(owner, name, 0.0)
        if isinstance(owner, nn.modules.dropout._DropoutNd):
            owner.p = 0.0


def _decided(model: Any, build: Build) -> Build:
    """How it attends, and whether rows are packed."""
    named = build.attention not in (*_UNSPECIFIC, NAME)
    if named:
        _attend(model, build.attention)
        packs = build.layout == "packed" and _packs_by(model, build.attention)
    else:
        packs = build.attention != "sdpa" and build.layout != "padded" and bool(_packs(model))
    if build.layout == "packed" and not packs:
        raise ModelError(
            f"learner.layout = 'packed': {type(model).__name__} does not keep packed rows apart (its layers mix "
            "tokens by more than attention, or attend in their own way); use --learner.layout=padded"
        )
    attention = build.attention if named else NAME if packs else "sdpa"
    return replace(build, layout="packed" if packs else "padded", attention=attention)


def _packs_by(model: Any, attention: str) -> bool:
    """The same by an attention that tells rows by their positions. One that does not run here (flash attention, where
    the model still is on a CPU) is taken for torch's, which is given the same positions."""
    for name in (attention, "sdpa", "eager"):
        kept = _packs(model, name)
        if kept is not None:
            return kept
    return False


def _check_routing(model: Any, build: Build) -> None:
    """Of a model that is tapped."""
    name, mixture = type(model).__name__, mixture_of(model.config.to_dict())
    if mixture is None:
        raise ConfigError(f"{KEY}: {name} has no experts; set it to false")
    if build.compile:
        raise ConfigError(f"{KEY} with learner.compile: routers in compiled blocks cannot be told; set one of the two")
    if not routes(model, mixture):
        raise ConfigError(f"{KEY}: {name} chooses its experts in a way that cannot be told; set it to false")


def _run_as(model: Any, build: Build) -> None:
    if build.routing_replay:
        tap(model)
    if build.recompute:
        _recompute(model)
    if build.compile:
        leave_untraced()
        for block in blocks_of(model):
            block.compile(dynamic=True)


def _recompute(model: Any) -> None:
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(how)
    else:  # its former name
        model.gradient_checkpointing_enable(how)


def _attend(model: Any, name: str) -> None:
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError) as e:
        raise ConfigError(f"learner.attention = {name!r}: {str(e).strip().splitlines()[0]}") from None


@torch.no_grad()
def _packs(model: Any, attention: str = "") -> bool | None:
    """Whether two rows in one sequence come out as each does alone; None: it cannot be called so. By our attention,
    which stays set where they do, or by a named one."""
    before, training = model.config._attn_implementation, model.training
    device = next(model.parameters()).device
    vocabulary = int(model.config.get_text_config().vocab_size)
    lengths = (5, 3)
    rows = [torch.arange(1, n + 1, device=device)[None] * 7919 % vocabulary for n in lengths]
    model.eval()
    try:
        if attention:
            model.set_attn_implementation(attention)
        alone = torch.cat([model.base_model(input_ids=row, use_cache=False).last_hidden_state for row in rows], dim=1)
        model.set_attn_implementation(attention or register())
        positions = torch.cat([torch.arange(n, device=device) for n in lengths])[None]
        told = {} if attention else {"stacks": stacks_of(lengths, device)}
        packed = model.base_model(
            input_ids=torch.cat(rows, dim=1), position_ids=positions, use_cache=False, **told
        ).last_hidden_state
        exact = 1e-4 if alone.dtype == torch.float32 else 0.05
        kept: bool | None = float((packed - alone).float().norm()) <= exact * float(alone.float().norm())
    except (ValueError, TypeError, RuntimeError, KeyError, ImportError):  # a model that cannot be called so
        kept = None
    finally:
        model.train(training)
    if attention or not kept:
        model.set_attn_implementation(before)
    return kept
