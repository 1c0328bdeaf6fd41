"""Text to token ids and back, fast: special tokens split a text, and what lies between them is remembered."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentgym.types import Ids

BREAK = "\ufdd0"
"""A noncharacter that no token may reach across; it leaves no token itself."""


class Encoder:
    """A tokenizer's `encode` and `decode` without its wrapper. Special tokens in a text are read as such."""

    def __init__(self, tokenizer: Any, template: str = "", cache_size: int = 16384):
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._cache: OrderedDict[str, list[int]] = OrderedDict()
        self._size = cache_size
        tokens = {token.content: (int(i), token) for i, token in tokenizer.added_tokens_decoder.items()}
        # some tokenizers have thousands; those that the template does not write may stay inside a piece
        used = [text for text in tokens if text in template or text == tokenizer.eos_token]
        self._added = {text: tokens[text][0] for text in used}
        self._pieces = re.compile("(" + "|".join(map(re.escape, [*sorted(used, key=len)[::-1], BREAK])) + ")")
        swallows = any(token.lstrip or token.rstrip or token.single_word for _, token in tokens.values())
        self._independent = not swallows and self._check_independence()

    def __call__(self, text: str) -> Ids:
        """Ids [T] of the text; the array is read-only, for it may be shared."""
        out = np.asarray(self.ids(text), dtype=np.int32)
        out.setflags(write=False)
        return out

    def ids(self, text: str) -> list[int]:
        if not self._independent:
            return [i for piece in text.split(BREAK) if piece for i in self._piece(piece)]
        out: list[int] = []
        for piece in self._pieces.split(text):
            if not piece or piece == BREAK:
                continue
            special = self._added.get(piece)
            if special is None:
                out += self._piece(piece)
            else:
                out.append(special)
        return out

    def decode(self, ids: Sequence[int]) -> str:
        if self._backend is not None:  # several times as fast as the wrapper, and cleans nothing up
            return str(self._backend.decode(ids, skip_special_tokens=False))
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _piece(self, text: str) -> list[int]:
        ids = self._cache.get(text)
        if ids is None:
            ids = self._cache[text] = self._raw(text)
            if len(self._cache) > self._size:
                self._cache.popitem(last=False)
        return ids

    def _raw(self, text: str) -> list[int]:
        if self._backend is not None:
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _check_independence(self) -> bool:
        """Whether the text on either side of a special token is tokenised on its own: true of byte-level tokenizers,
        not of those that mark the beginning of a text or whose special tokens swallow blanks."""
        for token, special in self._added.items():
            for left, right in (("a", "b"), ("a ", " b"), ("a\n", "\nb"), ("", "b"), (" ", " ")):
                apart = [*(self._raw(left) if left else []), special, *self._raw(right)]
                if self._raw(left + token + right) != apart:
                    return False
        return True
