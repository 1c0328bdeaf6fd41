"""The sections of the configuration: every field with its default, meaning and unit.

The defaults are careful ones for a pretrained model; the recipe `store` has those of the tiny model. Importing this
costs no torch.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

CONTROLS = Literal["none", "shuffle_rewards", "rejection_sampling"]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, coerce_numbers_to_str=True, use_attribute_docstrings=True
    )


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
    """SGLang, for requests under way when weights change: caches computed anew, caches kept, or asked again."""
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
    """local, docker, e2b or `path.py:Class`; empty: what the environment says, and else local."""
    image: str = ""
    """Image of a container or E2B's template; empty: what the environment or its task says."""


class ClusterConfig(Section):
    """Where the run's parts are."""

    kind: Literal["none", "ray"] = "none"
    """`ray`: rollout workers and SGLang's servers are actors of a Ray cluster."""
    address: str = ""
    """Of a cluster that is there, HOST:PORT or `auto`; empty: one is started on this machine."""
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


class TrainerConfig(Section):
    steps: int = Field(50, ge=0)
    """Learner steps."""
    credit: str = "grpo"
    """Credit assignment: grpo, rloo, reinforce_pp, turn, gigpo, bilevel_gae, progress (docs/credit.md), or your own as
    `path.py:function`."""
    loss: str = "grpo"
    """Loss, by name or `path.py:function` (docs/algorithms.md)."""
    checkpoint_every: int = Field(10, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(2, ge=1)
    """Checkpoints kept."""
    max_cpu_seconds: float = Field(0.0, ge=0)
    """CPU-seconds of the RL phase after which it stops; 0: no limit."""
    control: CONTROLS = "none"
    """Controls: shuffled rewards must not learn; rejection sampling is the supervised alternative."""


class CreditConfig(Section):
    """Settings of the credit that `trainer.credit` names (docs/credit.md)."""

    discount: float = Field(1.0, ge=0, le=1)
    """What a reward counts for the turn before it: `turn`, `gigpo`, `progress`, `reinforce_pp`, `bilevel_gae`."""
    baseline: Literal["batch", "group"] = "batch"
    """`reinforce_pp`: normalised returns over the batch, or over it after the group's mean was taken off."""
    step_weight: float = Field(1.0, ge=0)
    """`gigpo`: weight of the comparison of turns that began in the same state."""
    anchor: Literal["observation", "conversation"] = "observation"
    """`gigpo`: two states are the same if what the agent was last shown is, or if all that was said is."""
    score: Literal["env", "consistency", "gold"] = "env"
    """`progress`: the score of a state: what the env reports of it; how much of what the agent said it had been shown;
    or how likely the policy thinks the task's answer."""
    score_weight: float = Field(0.5, ge=0)
    """`progress`: weight of the change of the score beside the reward."""
    score_discount: float = Field(0.0, ge=0, le=1)
    """`progress`: what later changes of the score count for the turn before; 0: a turn has its own."""
    shaping: Literal["progress", "potential"] = "progress"
    """`progress`: the score is paid for; or it only serves as a baseline that knows the state (unbiased)."""
    turn_lambda: float = Field(0.95, ge=0, le=1)
    """`bilevel_gae`: lambda over turns; 1 trusts the rewards alone, 0 the critic alone."""
    token_discount: float = Field(1.0, ge=0, le=1)
    """`bilevel_gae`: what the value of the next token counts for this one, within a turn."""
    token_lambda: float = Field(1.0, ge=0, le=1)
    """`bilevel_gae`: lambda over the tokens of a turn."""
    critic: Literal["none", "head"] = "none"
    """`bilevel_gae`: `head`: a value head on the policy's last hidden states, which are not moved by it."""
    critic_lr: float = Field(1e-3, gt=0)
    """Learning rate of the value head."""
    critic_passes: int = Field(4, ge=1)
    """Times that the value head sees each batch."""


class LossConfig(Section):
    """What is minimised beside and around `trainer.loss`. Clip range, `std` and the KL's weight are the learner's."""

    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the loss that `trainer.loss` names, as `{ dual_clip = 3.0 }` (docs/algorithms.md)."""
    aggregate: Literal["auto", "token", "sequence", "constant"] = "auto"
    """The batch's loss: a mean over its tokens; over its sequences, each the mean of its tokens; or over its sequences,
    each the sum of its tokens by `length` (Dr.GRPO). auto: what the loss was published with, mostly `token`."""
    length: int = Field(0, ge=0)
    """The constant of `aggregate = "constant"`; 0: rollout.max_episode_tokens, else rollout.max_tokens."""
    anchor: Literal["auto", "behaviour", "recompute", "loglinear", "linear"] = "auto"
    """The policy that ratios and their trust region are against. behaviour: the one that sampled. recompute: the
    weights that the step began with, by a forward pass where there are several minibatches. loglinear, linear: the
    same, approximated between the other two by a token's age. auto: the loss's own, mostly `behaviour`."""
    correction: Literal["auto", "none", "full", "truncate", "mask"] = "auto"
    """Weight of each token where the anchor is not the behaviour policy, w = pi_anchor / pi_behaviour: as it is (AReaL,
    eq. 5), clipped (TIS), or 0 outside the bounds (IcePop). auto: the loss's own, else `full`."""
    correction_level: Literal["token", "sequence", "geometric"] = "token"
    """Whose w: a token's; its sequence's, as the product of the tokens'; or as their geometric mean."""
    correction_low: float = Field(0.0, ge=0)
    """Lower bound of w; 0: the loss's own, mostly none."""
    correction_high: float = Field(0.0, ge=0)
    """Upper bound of w; 0: the loss's own, else 2."""
    off_policy_mask: float = Field(0.0, ge=0)
    """Mask tokens of negative advantage in sequences whose mean log(pi_behaviour / pi) is above this. 0: none."""
    entropy: float = Field(0.0, ge=0)
    """Weight of the entropy bonus."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where `learner.kl` acts: as a term of the loss, or as a penalty on tokens, summed from each to the end of its row
    and taken from its advantage. Groups without differences in reward take no part in either."""
    kl_estimator: Literal["auto", "k1", "k2", "k3"] = "auto"
    """With d = log pi - log pi_ref: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d. auto: k2 in the loss, k1 in the reward,
    whose gradients are that of KL(pi || pi_ref)."""
    kl_correct: bool = False
    """In the loss: weigh the estimate by pi / pi_behaviour: the gradient of each is then that of KL(pi || pi_ref)."""
    kl_discount: float = Field(1.0, ge=0, le=1)
    """In the reward: how much of a later token's penalty an earlier one bears. 1: all; 0: each token its own."""
    mask_truncated: bool = False
    """Learn nothing from episodes that ran out of tokens or context (overlong filtering); they count as comparison."""
    overlong_buffer: int = Field(0, ge=0)
    """Soft punishment of length (DAPO, eq. 13) over the last so many tokens before the limit. 0: none."""
    overlong_penalty: float = Field(1.0, gt=0)
    """What is taken off the reward at the limit."""
    overlong_limit: int = Field(0, ge=0)
    """Sampled tokens of an episode that are the limit; 0: rollout.max_episode_tokens."""


class LearnerConfig(Section):
    lr: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW everywhere, or Muon on the matrices of the blocks and AdamW on the rest."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    warmup: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    decay: Literal["none", "linear", "cosine"] = "none"
    """Schedule after the warm-up, over `trainer.steps`."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    clip_low: float = Field(0.2, ge=0, lt=1)
    """Ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(0.28, ge=0)
    """Ratio is clipped above at 1 + clip_high."""
    kl: float = Field(0.0, ge=0)
    """Weight of the distance (KL) from the policy that RL began with. 0: none, and no reference is held. `loss.kl_in`
    and `loss.kl_estimator` say how."""
    std: bool = True
    """GRPO and GiGPO divide by the group's standard deviation; false: Dr.GRPO."""
    minibatches: int = Field(1, ge=1)
    """Optimizer steps a batch."""
    agreement: float = Field(0.0, ge=0, lt=1)
    """Hold the rate at 1% until the gradients of a batch's minibatches agree: their mean cosine, of 4 at least
    (less is asked of more). Where rewards mean nothing it stays there. 0: not asked for."""
    max_skipped: int = Field(8, ge=1)
    """Optimizer steps in a row, left out as their loss or gradient was not finite, after which the run stops."""
    tokens_per_microbatch: int = Field(8192, ge=1)
    """Tokens of one forward and backward pass, padding included; a longer row has one of its own."""
    layout: Literal["auto", "packed", "padded"] = "auto"
    """Rows of a micro-batch one after the other, or each padded to the longest; auto: packed where the model can."""
    attention: str = "auto"
    """By transformers' name, as `flash_attention_2`; auto: torch's kernels, also over packed rows."""
    recompute: bool = False
    """Activation checkpointing: only each block's input is kept, the rest is computed again in the backward pass."""
    compile: bool = False
    """torch.compile on each block."""
    long_rows: Literal["alone", "drop", "refuse"] = "alone"
    """A row above `tokens_per_microbatch`: trained alone, left out, or the end of the run; it is named in each case."""
    ranks: int = Field(1, ge=1)
    """Learner processes; the weights are sharded over them (FSDP2). A GPU each, or gloo on the CPU."""
    timeout: float = Field(600.0, gt=0)
    """Seconds that a rank waits for the others before the run ends."""
    device: str = "auto"
    """`cpu`, `cuda`; auto: a GPU where there is one."""
    threads: int = Field(1, ge=1)
    """Intra-op threads on a CPU."""

    @field_validator("agreement")
    @classmethod
    def _something_to_compare(cls, wanted: float, info: ValidationInfo) -> float:
        if wanted and info.data.get("minibatches", 2) < 2:
            raise ValueError("it compares minibatches: set learner.minibatches to 2 or more")
        return wanted


class SFTConfig(Section):
    data: str = ""
    """JSONL of conversations ({"messages": [...], "tools": [...]}); empty: the env's scripted expert."""
    steps: int = Field(0, ge=0)
    """Supervised steps before RL; 0: no warm start."""
    examples: int = Field(2048, ge=1)
    """Demonstrations played by the env's scripted expert."""
    batch_size: int = Field(64, ge=1)
    """Conversations a step."""
    lr: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """As `learner.optimizer`."""


class EvalConfig(Section):
    tasks: int = Field(400, ge=0)
    """Held-out tasks, before and after training; 0: no evaluation."""
    greedy: bool = True
    """Also evaluate greedily."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the sampled evaluation."""
    seed: int = Field(1_000_003, ge=0)
    """Seed of the evaluation, the same before and after."""


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
