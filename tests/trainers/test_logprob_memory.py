"""The logprob step never holds all logits: measured, forward and backward, for a vocabulary of 150k."""

from __future__ import annotations

import subprocess
import sys

import pytest

TOKENS, VOCABULARY, HIDDEN = 512, 151936, 1024
"""Qwen3-0.6B's: the head's matrix has as many numbers as 1,024 tokens have logits, and so has each gradient of it."""
STATED = 16384
"""Tokens whose logits the peak is compared with. It is that of a chunk, whatever the number of chunks: what grows with
the tokens is left, hidden states and their gradient."""

# in a process of its own, whose peak is this step's alone
STEP = f"""
import re, sys
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from agentgym.trainers.logprobs import chosen_logprobs

def resident(which):
    return 1024 * int(re.search(which + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

torch.set_num_threads(1)
model = Qwen3ForCausalLM(Qwen3Config(
    vocab_size={VOCABULARY}, hidden_size={HIDDEN}, intermediate_size=64, num_hidden_layers=1,
    num_attention_heads=1, num_key_value_heads=1, head_dim=64, tie_word_embeddings=True))
weight = model.get_output_embeddings().weight
hidden = torch.randn({TOKENS}, {HIDDEN}, requires_grad=True)
targets = torch.randint(0, {VOCABULARY}, ({TOKENS},))
few, _ = chosen_logprobs(model, hidden[:8], targets[:8], 1.0)  # what is loaded only when it is used
few.sum().backward()
weight.grad = torch.ones_like(weight) if "again" in sys.argv else None
open("/proc/self/clear_refs", "w").write("5")  # the peak is from here on
before = resident("VmRSS")
picked, _ = chosen_logprobs(model, hidden, targets, 1.0)
picked.sum().backward()
assert float(hidden.grad.abs().sum()) > 0
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("passed", ["first", "again"])
def test_peak_memory_is_a_sixteenth_of_the_logits(passed: str) -> None:
    """The head's gradient is no part of it: the first pass makes it, the others add to it."""
    done = subprocess.run([sys.executable, "-c", STEP, passed], capture_output=True, text=True, check=True)
    peak = int(done.stdout) - (VOCABULARY * HIDDEN * 4 if passed == "first" else 0)
    peak, full = peak + 2 * (STATED - TOKENS) * HIDDEN * 4, STATED * VOCABULARY * 4
    print(f"peak {peak / 2**20:.0f} MiB, full logits {full / 2**20:.0f} MiB: 1/{full / peak:.0f}")
    assert peak <= full / 16
