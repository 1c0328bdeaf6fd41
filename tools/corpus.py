"""A corpus: documents with ids and titles, read from a file or given, and a BM25 index over them.

Read are objects with `text` or `contents` and, where they have them, `id` (or `_id`, `docid`) and `title`: plain JSONL,
the JSON lists of 2Wiki and HippoRAG, and Search-R1's rows, whose `contents` begin with the title in quotes.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.errors import DataError
from agentgym.json_files import file_version, read_objects

TITLE_WEIGHT = 2
"""How often a title counts: a document about something is worth more than one that mentions it."""
_IDS = ("id", "_id", "docid")
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # written without spaces: each character is a word
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of text that can be found. `title` may be empty."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found, with its BM25 score, above 0."""

    document: Document
    score: float


class Corpus:
    """Documents by id, and a search over them. The index is built at the first search, once, and never changes.

    Raises `DataError` for no documents at all, or two of one id.
    """

    def __init__(self, documents: Iterable[Document]):
        self._documents = tuple(documents)
        self._by_id = {document.id: document for document in self._documents}
        if not self._documents:
            raise DataError("the corpus has no documents")
        if len(self._by_id) < len(self._documents):
            raise DataError(f"two documents of the corpus have the id {_first_twice(self._documents)!r}")
        self._index: _Index | None = None
        self._building = threading.Lock()  # tools may run in threads
        self._by_title: dict[str, list[Document]] | None = None

    @classmethod
    def of(cls, documents: Iterable[Any]) -> Corpus:
        """From texts, dicts as in a file, and `Document`s; raises `DataError` naming the item."""
        return cls(_documents((f"documents[{i}]", item) for i, item in enumerate(documents)))

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents)

    def get(self, id: str) -> Document | None:
        return self._by_id.get(id)

    def titled(self, title: str) -> list[Document]:
        """The documents of a title, capitals and accents aside."""
        if self._by_title is None:
            found: dict[str, list[Document]] = {}
            for document in self._documents:
                found.setdefault(" ".join(words(document.title)), []).append(document)
            self._by_title = found
        return self._by_title.get(" ".join(words(title)), [])

    def search(self, query: str, k: int = 3) -> list[Hit]:
        """At most `k` documents that share a word with the query, best first; equal ones in the corpus's order."""
        if self._index is None:
            with self._building:
                self._index = self._index or _Index(self._documents)
        return [Hit(self._documents[i], score) for i, score in self._index.best(query, k)]


class _Index:
    """BM25 (Lucene's form, by bm25s) over the documents' titles and texts."""

    def __init__(self, documents: Iterable[Document]):
        from bm25s import BM25

        self._vocabulary: dict[str, int] = {}
        ids = [self._ids_of(document) for document in documents]
        self._bm25 = BM25(method="lucene", k1=1.2, b=0.75)
        if self._vocabulary:  # else no document has a word, and nothing is ever found
            self._bm25.index((ids, dict(self._vocabulary)), show_progress=False)

    def _ids_of(self, document: Document) -> list[int]:
        known = self._vocabulary
        found = words(document.title) * TITLE_WEIGHT + words(document.text)
        return [known.setdefault(word, len(known)) for word in found]

    def best(self, query: str, k: int) -> list[tuple[int, float]]:
        """(document's place, score), best first."""
        # sorted: the same words in another order add up to the same sums
        ids = sorted({self._vocabulary[word] for word in words(query) if word in self._vocabulary})
        if not ids:
            return []
        scores = self._bm25.get_scores_from_ids(ids)
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            least = np.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= least]
        ranked = found[np.argsort(-scores[found], kind="stable")][:k]
        return [(int(i), float(scores[i])) for i in ranked]


def words(text: str) -> list[str]:
    """A text as the words it is found by: without capitals, accents and punctuation."""
    if not text.isascii():
        apart = _marks().sub("", unicodedata.normalize("NFKD", text))
        text = unicodedata.normalize("NFC", apart)  # puts Korean together again
    return _WORD.findall(text.casefold())


@cache
def _marks() -> re.Pattern[str]:
    """Accents and other combining marks, as characters of their own."""
    return re.compile(f"[{''.join(c for c in map(chr, range(0x10000)) if unicodedata.combining(c))}]")


def load_corpus(*paths: str | Path) -> Corpus:
    """The corpus of files of JSONL or JSON lists (gzipped too), read and indexed once in a process as long as they
    do not change. Raises `DataError` naming file and line."""
    if not paths:
        raise DataError("no corpus: name a file of documents")
    return _load(tuple([_version(path) for path in paths]))


def _version(path: str | Path) -> tuple[str, int, int, int]:
    version = file_version(path, "the corpus", "a file of JSON lines or a JSON list")
    if version[0].endswith(".parquet"):
        raise DataError(f"{path}: cannot read the corpus: Parquet is not read here; write it as JSON lines")
    return version


@lru_cache(maxsize=8)
def _load(versions: tuple[tuple[str, int, int, int], ...]) -> Corpus:
    rows = ((f"{path}:{line}", row) for path, *_ in versions for line, row in read_objects(path))
    documents = list(_documents(rows))
    if not documents:
        raise DataError(f"{versions[0][0]}: no documents in it")
    return Corpus(documents)


def _documents(rows: Iterable[tuple[str, Any]]) -> Iterator[Document]:
    """The documents of (where, row); raises `DataError`. One without an id has its title for one, else its number."""
    where_of: dict[str, str] = {}
    for number, (where, row) in enumerate(rows):
        try:
            document, named = _document(row, number)
        except ValueError as e:
            raise DataError(f"{where}: {e}") from None
        if document.id in where_of and not named:
            document = Document(_unused(document.id, where_of), document.title, document.text)
        if document.id in where_of:
            raise DataError(f"{where}: the id {document.id!r} is also that of {where_of[document.id]}; ids must differ")
        where_of[document.id] = where
        yield document


def _unused(id: str, used: Mapping[str, str]) -> str:
    number = 2
    while f"{id} ({number})" in used:
        number += 1
    return f"{id} ({number})"


def _document(row: Any, number: int) -> tuple[Document, bool]:
    """A row as a document, and whether the row named its id; raises `ValueError`."""
    if isinstance(row, Document):
        return row, True
    if isinstance(row, str):
        row = {"text": row}
    if not isinstance(row, Mapping):
        raise ValueError(f"expected a text or an object with 'text', got {type(row).__name__}")
    title = row.get("title") or ""
    if not isinstance(title, str):
        raise ValueError(f"'title': expected text, got {type(title).__name__}")
    field = "text" if "text" in row else "contents"
    text = row.get(field)
    if text is None:
        raise ValueError(f"no 'text' or 'contents' (it has: {', '.join(map(str, row)) or 'nothing'})")
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = "".join(text)  # HotpotQA's sentences
    if not isinstance(text, str):
        raise ValueError(f"{field!r}: expected text, got {type(text).__name__}")
    if not title and field == "contents":
        title, text = _split_title(text)
    if not title.strip() and not text.strip():
        raise ValueError(f"{field!r} is empty")
    given = next((row[key] for key in _IDS if row.get(key) is not None), None)
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int) or given == ""):
        raise ValueError(f"'id': expected text or a whole number, got {given!r}")
    id = str(given) if given is not None else " ".join(title.split()) or str(number)
    return Document(id, title.strip(), text.strip()), given is not None


def _split_title(contents: str) -> tuple[str, str]:
    """Search-R1's contents: the title, in quotes, on a line of its own."""
    first, newline, rest = contents.partition("\n")
    first = first.strip()
    if newline and len(first) > 2 and first[0] == first[-1] == '"':
        return first[1:-1], rest
    return "", contents


def _first_twice(documents: Iterable[Document]) -> str:
    seen: set[str] = set()
    return next(d.id for d in documents if d.id in seen or seen.add(d.id))  # type: ignore[func-returns-value]
