"""The logprob step never holds all logits: measured, forward and backward, for a vocabulary of 150k."""

from __future__ import annotations

import subprocess
import sys

import pytest

TOKENS, VOCABULARY, HIDDEN = 1024, 151936, 64
STATED = 16384
"""Tokens whose logits the peak is compared with. It is that of a chunk, whatever the number of chunks: what grows with
the tokens is left, hidden states and their gradient."""

# in a process of its own, whose peak is this step's alone
STEP = f"""
import resource, sys
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from agentgym.trainers.logprobs import chosen_logprobs

torch.set_num_threads(1)
model = Qwen3ForCausalLM(Qwen3Config(
    vocab_size={VOCABULARY}, hidden_size={HIDDEN}, intermediate_size=64, num_hidden_layers=1,
    num_attention_heads=1, num_key_value_heads=1, head_dim=64, tie_word_embeddings=True))
weight = model.get_output_embeddings().weight
weight.grad = torch.zeros_like(weight)
hidden = torch.randn({TOKENS}, {HIDDEN}, requires_grad=True)
targets = torch.randint(0, {VOCABULARY}, ({TOKENS},))
few, _ = chosen_logprobs(model, hidden[:8], targets[:8], 1.0)  # what is loaded only when it is used
few.sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picked, _ = chosen_logprobs(model, hidden, targets, 1.0)
picked.sum().backward()
assert float(hidden.grad.abs().sum()) > 0
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_peak_memory_is_a_sixteenth_of_the_logits() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    peak, full = int(done.stdout) + 2 * (STATED - TOKENS) * HIDDEN * 4, STATED * VOCABULARY * 4
    print(f"peak {peak / 2**20:.0f} MiB, full logits {full / 2**20:.0f} MiB: 1/{full / peak:.0f}")
    assert peak <= full / 16
