"""The sections of the configuration about learning: what is trained, by which credit and loss, and how it is judged.

The others are in `agentgym.sections`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from agentgym.section import Section

CONTROLS = Literal["none", "shuffle_rewards", "rejection_sampling"]


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
    scale: Literal["group", "batch"] = "group"
    """`grpo`: `learner.std` divides by the deviation of the group's rewards, or by that of all rewards of the step
    (LitePPO)."""
    whiten: bool = False
    """Any credit: its advantages, less their mean over the tokens of the step, over their deviation."""
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
    routing_replay: bool = False
    """Of a mixture of experts: tokens go to the experts that the engine sent them to, weighed by the learner's own
    router (docs/learner.md). The engine has to tell them: `local` does, and SGLang that can."""
    long_rows: Literal["alone", "drop", "refuse"] = "alone"
    """A row above `tokens_per_microbatch`: trained alone, left out, or the end of the run; it is named in each case."""
    ranks: int = Field(1, ge=1)
    """Learner processes; the weights are sharded over them (FSDP2). A GPU each, or gloo on the CPU. On a Ray cluster
    all but the first are actors."""
    tensor_parallel: int = Field(1, ge=1)
    """Ranks that share the matrices of every block, by transformers' plan for the model: a mesh of `ranks` by
    `tensor_parallel`, FSDP2 over the others. It divides `ranks`, and the model's attention and key/value heads."""
    timeout: float = Field(600.0, gt=0)
    """Seconds that a rank waits for the others before the run ends."""
    device: str = "auto"
    """`cpu`, `cuda`; auto: a GPU where there is one."""
    threads: int = Field(1, ge=1)
    """Intra-op threads on a CPU."""

    @field_validator("tensor_parallel")
    @classmethod
    def _whole_groups(cls, parts: int, info: ValidationInfo) -> int:
        if (ranks := info.data.get("ranks", parts)) % parts:
            raise ValueError(f"it does not divide learner.ranks = {ranks}: set one so that it does")
        return parts

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
    every: int = Field(0, ge=0)
    """Also evaluate, sampled, each so many steps, while training goes on; 0: never."""
    greedy: bool = True
    """Also evaluate greedily, before and after."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the sampled evaluation."""
    seed: int = Field(1_000_003, ge=0)
    """Seed of the evaluation, the same before and after."""
