"""What a model folder holds: names and shapes of its tensors, vocabulary, tied embeddings. Read without torch.

A server takes whatever it is sent: it skips names that it does not know and cannot miss one that does not come. So new
weights are held against the folder that it was started with, before the first is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.engines.mixture import Mixture, mixture_of
from agentgym.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class ModelLayout:
    folder: str
    kind: str
    """The architecture's name, as `qwen3`."""
    shapes: Shapes
    vocabulary: int
    tied: bool
    """Whether the output head is the embedding: then its name may be given or left out."""
    mixture: Mixture | None = None

    def check(self, given: Shapes) -> None:
        """Raises `ModelError` naming what is unknown, missing or of another shape."""
        optional = {HEAD} if self.tied else set()
        problems = [f"unknown tensor {name!r}" for name in given if name not in self.shapes and name not in optional]
        problems += [f"missing tensor {name!r}" for name in self.shapes if name not in given and name not in optional]
        for name, shape in given.items():
            wanted = self.shapes.get(name) or (self.shapes.get(EMBEDDING) if name in optional else None)
            if wanted is not None and tuple(shape) != tuple(wanted):
                problems.append(f"{name!r} has shape {tuple(shape)}, the model has {tuple(wanted)}")
        if problems:
            more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
            raise ModelError(f"weights do not fit the model: {'; '.join(problems[:8])}{more}")


def read_layout(folder: str | Path) -> ModelLayout | None:
    """The layout of a local Hugging Face folder; None for what is none (an id, or a server's own path)."""
    path = Path(folder)
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        return None
    shapes = folder_shapes(path)
    if not shapes:
        return None
    inner = config.get("text_config") or {}
    tied = config.get("tie_word_embeddings", inner.get("tie_word_embeddings", False))
    vocabulary = config.get("vocab_size", inner.get("vocab_size", 0))
    return ModelLayout(
        str(path), str(config.get("model_type", "")), shapes, int(vocabulary or 0), bool(tied), mixture_of(config)
    )


def folder_shapes(folder: str | Path) -> Shapes:
    """Names and shapes of all tensors in a folder's safetensors files; raises `ModelError` for a broken file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        shapes.update(_shapes(file))
    return shapes


def _shapes(file: Path) -> Shapes:
    """A safetensors file begins with the length of its header (8 bytes, little-endian) and the header as JSON."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        return {name: tuple(row["shape"]) for name, row in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as e:
        raise ModelError(f"{file}: cannot read model weights: {type(e).__name__}: {e}") from None
