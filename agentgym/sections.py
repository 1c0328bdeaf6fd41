"""The sections of the configuration: every field with its default, meaning and unit.

The defaults are careful ones for a pretrained model; the recipe `store` has those of the tiny model. Importing this
costs no torch.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from agentgym.learning_sections import (
    CreditConfig,
    EvalConfig,
    LearnerConfig,
    LossConfig,
    SFTConfig,
    TrainerConfig,
)
from agentgym.section import Section


class RunConfig(Section):
    dir: str = ""
    """Run folder; empty: `runs/<env>-<time>`."""
    seed: int = Field(0, ge=0)
    """Seed of everything random."""
    live: Literal["auto", "on", "off"] = "auto"
    """Live view on the terminal; auto: when there is one."""
    processes: Literal[1, 2] = 2
    """2: rollout worker and learner are processes of their own; 1: both in this one (debugging, notebooks)."""
    stall_seconds: float = Field(60.0, ge=0)
    """After so many seconds without a group the run says what it waits for, on the console and in stalls.jsonl, and
    again after twice as long; 0: it does not."""


class EnvConfig(Section):
    id: str = "agentgym/Store-v0"
    """Environment id or `path.py:name`."""
    name: str = ""
    """What reports call it; empty: its id. Needed where one id is played with several arguments."""
    data: str = ""
    """A JSONL file of tasks, in place of the env's generated ones."""
    reward: str = ""
    """`path.py:function`, reward(task, answer, episode) -> float or dict of components."""
    rewards: dict[str, Any] = Field(default_factory=dict)
    """Graders by name, added to the env's own reward with a weight: `{ efficiency = 0.2 }` (docs/graders.md)."""
    tools: str = ""
    """`path.py:a,b`: tools in place of the env's own."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the env's constructor."""
    demo_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments laid over `args` while its scripted expert plays demonstrations, as `{ busy = 0.3 }`."""
    weight: float = Field(1.0, gt=0)
    """Share of the groups, when there are several envs."""

    @property
    def label(self) -> str:
        """What requests, figures and files call it."""
        return self.name or self.id


class ModelConfig(Section):
    path: str = ""
    """A Hugging Face model folder or id; empty: a tiny model is built locally."""
    revision: str = ""
    """Revision of a Hugging Face id."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the engine holds and both sides compute in; the learner keeps its weights in float32 all the same."""
    tool_format: str = "auto"
    """How the model writes tool calls; auto: by its chat template."""
    keep_thinking: bool = False
    """Keep earlier reasoning in the context where a chat template would remove it (else such an episode branches)."""
    lora_rank: int = Field(0, ge=0)
    """Rank of LoRA adapters, which are then all that is trained; engines get merged weights. 0: all is trained."""
    lora_alpha: float = Field(0.0, ge=0)
    """Their scale times the rank; 0: twice the rank."""
    lora_targets: list[str] = Field(default_factory=list)
    """Last parts of module names, as ["q_proj", "v_proj"]; empty: all linear layers but the head."""
    layers: int = Field(3, ge=1)
    """Tiny model: layers."""
    width: int = Field(128, ge=8)
    """Tiny model: hidden size."""
    heads: int = Field(4, ge=1)
    """Tiny model: attention heads."""


class EngineConfig(Section):
    kind: Literal["local", "sglang", "scripted"] = "local"
    """`local`: torch in this machine's rollout worker; `sglang`: servers, started here or given by `urls`."""
    slots: int = Field(96, ge=1)
    """Sequences that the engine holds at once; fewer where memory has no room for the cache of so many."""
    max_context: int = Field(0, ge=0)
    """Tokens of a sequence, prompt included; 0: as many as the model has positions, at most 4096."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; auto: a GPU where there is one."""
    threads: int = Field(1, ge=1)
    """Intra-op threads on a CPU."""
    replicas: int = Field(1, ge=1)
    """SGLang: servers to start, each with the whole model."""
    gpus_each: int = Field(1, ge=1)
    """SGLang: GPUs of one server, its weights sharded over them."""
    urls: list[str] = Field(default_factory=list)
    """SGLang: servers that run already, as http://HOST:PORT; none is started then."""
    python: str = ""
    """SGLang: the interpreter that has it; empty: AGENTGYM_SGLANG_PYTHON, this one, or the cache folder's."""
    port: int = Field(0, ge=0, le=65535)
    """SGLang: port of the first server, the others follow; 0: any that are free."""
    sync: Literal["disk", "distributed", "tensor"] = "disk"
    """SGLang: how new weights get there: a folder both see, a broadcast (gloo, NCCL), or a shared GPU's memory."""
    bucket_mib: int = Field(256, ge=1)
    """SGLang: MiB of weights under way at once, where they are not read from disk."""
    pause: Literal["retract", "in_place", "abort"] = "retract"
    """For requests under way when weights change: caches computed anew, caches kept, or (SGLang) asked again."""
    update: Literal["rolling", "together"] = "rolling"
    """SGLang: new weights reach one replica after the other while the rest serve, or all at once."""
    server_args: list[str] = Field(default_factory=list)
    """SGLang: further arguments of the server, as ["--mem-fraction-static", "0.5"]."""
    timeout: float = Field(300.0, gt=0)
    """SGLang: seconds that one request may take, and never more than half of what its turn or episode may."""


class EndpointConfig(Section):
    model: str = ""
    """Name of the model there; empty: the only one that the endpoint lists."""
    timeout: float = Field(60.0, gt=0)
    """Seconds that one request may take."""
    retries: int = Field(4, ge=0)
    """Further attempts where a request timed out, was refused for its rate (429), or the server failed (5xx)."""
    tools: Literal["native", "text"] = "native"
    """`native`: tools and calls in the protocol's own fields; `text`: described and written in the text."""
    concurrency: int = Field(16, ge=1)
    """Episodes under way at once."""


class SandboxConfig(Section):
    """Of every environment whose agent or grader runs code."""

    backend: str = ""
    """local, landlock (weaker walls, where namespaces are refused), docker, e2b or `path.py:Class`; empty: what the
    environment says, and else local."""
    image: str = ""
    """Image of a container or E2B's template; empty: what the environment or its task says."""


class ClusterConfig(Section):
    """Where the run's parts are."""

    kind: Literal["none", "ray"] = "none"
    """`ray`: rollout workers, SGLang's servers and the learner's further ranks are actors of a Ray cluster."""
    address: str = ""
    """Of a cluster that is there, HOST:PORT or `auto`; empty: one is started on this machine."""
    placement: Literal["split", "colocated"] = "split"
    """`split`: engine and learner have GPUs of their own; `colocated`: one server and one rank share one, in turn, each
    giving its memory back. Then rollout.max_staleness is 0."""
    patience: float = Field(60.0, gt=0)
    """Seconds to wait for room on the cluster, when the run begins and after a machine was lost."""


class PlanConfig(Section):
    """What `--dry-run` and start files assume. A run itself reads none of it."""

    gpu: str = ""
    """Card that is planned for, as `H100`; `cpu`: none; empty: what this machine has."""
    gpus: int = Field(0, ge=0)
    """Cards there are in all; 0: as many as the run takes."""
    gpus_per_node: int = Field(8, ge=1)
    """Cards of one machine."""
    episode_tokens: int = Field(0, ge=0)
    """Tokens of an episode on average, prompt and observations included; 0: half of the context."""
    sampled: float = Field(0.5, gt=0, le=1)
    """Share of them that the policy samples."""
    mfu: float = Field(0.3, gt=0, le=1)
    """Share of a card's peak FLOP/s that the learner reaches."""
    prefill_mfu: float = Field(0.4, gt=0, le=1)
    """The same of an engine that reads context."""
    bandwidth: float = Field(0.6, gt=0, le=1)
    """Share of a card's memory bandwidth that decoding reaches."""
    link: float = Field(0.7, gt=0, le=1)
    """Share of the links' rates that sharding and weight updates reach."""
    launch_us: float = Field(0.0, ge=0)
    """Microseconds that a layer costs each decoding step besides; 0: 15 for SGLang, 200 for the local engine, 3000 on
    a CPU."""
    disk_gbs: float = Field(2.0, gt=0)
    """GB/s of the folder that weights go through (engine.sync = disk)."""
    reserve_gib: float = Field(2.0, ge=0)
    """GiB of a card that each process on it leaves alone: CUDA's context, NCCL, fragmentation."""


class RolloutConfig(Section):
    agent: str = ""
    """`path.py:function`: a program of yours plays the episodes, over an endpoint; empty: our own agent."""
    workers: int = Field(1, ge=1)
    """Rollout workers; more than one takes a cluster."""
    cpus_each: float = Field(1.0, gt=0)
    """Cores that a cluster keeps for each of them."""
    gpus_each: float = Field(0.0, ge=0)
    """GPUs, or shares of one, that a cluster keeps for each of them: the local engine's."""
    groups: int = Field(16, ge=1)
    """Tasks a step."""
    group_size: int = Field(8, ge=2)
    """Episodes a task."""
    focus: float = Field(0.0, ge=0, lt=1)
    """Preference for tasks of middling success: one that succeeds with probability p (its own, else its kind's, as
    this run measures it) is passed over, until the next epoch, with probability focus * (1 - 4p(1 - p)). 0: none is."""
    dynamic_sampling: float = Field(0.0, ge=0)
    """Groups without differences, from which nothing can be learned, are replaced by others, at most so many times
    `groups` a step; they stay in the figures and in the ledger. 0: they are part of the batch, without a gradient."""
    max_staleness: int = Field(1, ge=0)
    """Versions a trained token may be behind; 0: synchronous."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature in training."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Must be 1: see `top_k`."""
    top_k: int = Field(0, ge=-1)
    """Must be 0: a token's ratio between two policies means nothing where each has cut off a tail of its own."""
    max_turns: int = Field(0, ge=0)
    """Assistant messages an episode may have; 0: the env's own limit."""
    max_tokens: int = Field(512, ge=1)
    """Tokens of one assistant message."""
    max_reasoning_tokens: int = Field(0, ge=0)
    """Tokens that a message may reason for; beyond it the reasoning is closed, and the model goes on to answer within
    `max_tokens`. 0: no limit but that."""
    max_episode_tokens: int = Field(0, ge=0)
    """Sampled tokens of one episode; 0: no limit but the context."""
    max_seconds: float = Field(300.0, gt=0)
    """Seconds of one episode. Whatever goes on in it ends with it."""
    turn_seconds: float = Field(0.0, ge=0)
    """Seconds of one turn, the engine's answer and the env's to it; 0: as long as the episode."""
    tool_seconds: float = Field(0.0, ge=0)
    """Seconds of one call of a tool: beyond it the tool is at fault, and the episode unscored. A tool's own timeout,
    where it is shorter, is an answer that the model sees. 0: as long as the turn."""
    max_parse_errors: int = Field(3, ge=1)
    """Malformed messages in a row that end an episode."""
    concurrency: int = Field(96, ge=1)
    """Episodes under way at once, in each worker: at most so many."""
    adaptive: bool = True
    """Fewer are under way while the engine's queue or cache is full, and more again when it is not (AIMD)."""
    retries: int = Field(1, ge=0)
    """Times that an episode is played again, in a fresh env, where the machinery failed and not the model (env, tool,
    sandbox, verifier, engine); after that it is unscored."""
    failure_budget: float = Field(0.5, ge=0, le=1)
    """Share of unscored episodes, of the last `failure_window`, beyond which the run stops."""
    failure_window: int = Field(256, ge=1)
    """Episodes that `failure_budget` looks back over."""

    @field_validator("turn_seconds", "tool_seconds")
    @classmethod
    def _nested(cls, given: float, info: ValidationInfo) -> float:
        """tool <= turn <= episode, where both are given."""
        for outer in ("max_seconds", "turn_seconds"):
            room = info.data.get(outer)
            if outer != info.field_name and given and room and given > room:
                inner = "a turn" if info.field_name == "turn_seconds" else "a tool's call"
                what = "its episode" if outer == "max_seconds" else "its turn"
                raise ValueError(f"{inner} cannot be longer than {what}: rollout.{outer} is {room:g}")
        return given

    @field_validator("top_p", "top_k")
    @classmethod
    def _whole_distribution(cls, given: float, info: ValidationInfo) -> float:
        if given not in ((1.0,) if info.field_name == "top_p" else (0, -1)):
            raise ValueError(
                "training needs the whole distribution: the logprobs of a truncated one put half of the ratios outside "
                "of the clip range; leave it out, and lower rollout.temperature instead"
            )
        return given


class Config(Section):
    """The whole of it. `envs` is the plural of `env`, for runs over several."""

    run: RunConfig = Field(default_factory=RunConfig)
    env: EnvConfig = Field(default_factory=EnvConfig)
    envs: list[EnvConfig] = Field(default_factory=list)
    model: ModelConfig = Field(default_factory=ModelConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    endpoint: EndpointConfig = Field(default_factory=EndpointConfig)
    sandbox: SandboxConfig = Field(default_factory=SandboxConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    plan: PlanConfig = Field(default_factory=PlanConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    credit: CreditConfig = Field(default_factory=CreditConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    sft: SFTConfig = Field(default_factory=SFTConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)

    @field_validator("envs")
    @classmethod
    def _distinct(cls, envs: list[EnvConfig]) -> list[EnvConfig]:
        names = [env.label for env in envs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]!r} is there twice: give each a name of its own (name = ...)")
        return envs

    @property
    def all_envs(self) -> list[EnvConfig]:
        return self.envs or [self.env]
