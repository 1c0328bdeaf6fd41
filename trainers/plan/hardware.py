"""The cards that a plan is made for, by their makers' data sheets.

Rates are peaks of dense arithmetic (no sparsity), in one direction for links. What a run reaches of them is assumed in
the config's section `plan`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from agentgym.config import Config
from agentgym.errors import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Card:
    """One accelerator, or a CPU in its place. Bytes, FLOP/s, bytes/s."""

    name: str
    memory: int
    bf16: float
    fp32: float
    bandwidth: float
    link: float
    """To another card of the same machine: NVLink, else PCIe."""
    net: float
    """To a card of another machine: one network adapter a card, as such machines are usually built."""
    host: float = 32e9
    """To the machine's own memory: PCIe."""

    @property
    def is_cpu(self) -> bool:
        return self.name == CPU

    def flops(self, dtype: str) -> float:
        return self.bf16 if dtype == "bfloat16" else self.fp32


CPU = "CPU"
CORE_FLOPS, CPU_BANDWIDTH = 96e9, 20e9
"""Of one core with AVX2 in fp32 (two times eight fused operations a cycle, at 3 GHz), and of its memory."""

CARDS = (
    # memory as the driver reports it; fp32 without tensor cores, as torch computes it unless told otherwise
    Card("H100", 81_559 * MIB, 989e12, 67e12, 3.35e12, 450e9, 50e9, 64e9),
    Card("H200", 143_771 * MIB, 989e12, 67e12, 4.8e12, 450e9, 50e9, 64e9),
    Card("B200", 183_359 * MIB, 2250e12, 75e12, 7.7e12, 900e9, 50e9, 64e9),
    Card("A100", 81_920 * MIB, 312e12, 19.5e12, 2.04e12, 300e9, 25e9, 32e9),
    Card("A100-40GB", 40_960 * MIB, 312e12, 19.5e12, 1.56e12, 300e9, 25e9, 32e9),
    Card("L40S", 46_068 * MIB, 362e12, 91.6e12, 0.864e12, 32e9, 12.5e9, 32e9),
    Card("RTX4090", 24_564 * MIB, 165e12, 82.6e12, 1.008e12, 32e9, 3.1e9, 32e9),
)


def find_card(name: str) -> Card:
    """A card by name, whatever its case; raises `ConfigError` naming the nearest."""
    known = {_plain(card.name): card for card in CARDS}
    if (card := known.get(_plain(name))) is not None:
        return card
    close = difflib.get_close_matches(_plain(name), known, n=1, cutoff=0.4)
    nearest = f"; did you mean {known[close[0]].name!r}?" if close else ""
    raise ConfigError(
        f"plan.gpu = {name!r}: no such card is known{nearest} (known: {', '.join(card.name for card in CARDS)}, cpu)"
    )


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "-").removeprefix("nvidia").removeprefix("-")


def cpu_card(threads: int) -> Card:
    """This machine's cores and memory, in a card's place."""
    import torch

    from agentgym.engines.size import free_bytes

    rate = threads * CORE_FLOPS
    free = free_bytes(torch.device("cpu"))
    return Card(CPU, free, rate, rate, CPU_BANDWIDTH, CPU_BANDWIDTH, CPU_BANDWIDTH, CPU_BANDWIDTH)


def planned_card(config: Config) -> Card | None:
    """The card of `plan.gpu`, else of this machine; None for none. Raises `ConfigError`."""
    asked = config.plan.gpu
    if asked:
        return None if asked.lower() == "cpu" else find_card(asked)
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name(0)
    words = _plain(name)
    # the longest name that fits: an A100-40GB is also an A100
    fitting = [card for card in CARDS if all(part in words for part in _plain(card.name).split("-"))]
    if not fitting:
        raise ConfigError(f"this machine's {name} is not in the table of cards: say the nearest by plan.gpu")
    return max(fitting, key=lambda card: len(card.name))
