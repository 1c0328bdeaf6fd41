"""`search` and `read_document`: tools over a corpus of documents."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentgym.tools.corpus import Corpus, Document, load_corpus
from agentgym.tools.decorator import FunctionTool, ToolFailed, tool
from agentgym.tools.snippet import snippet_of

MAX_RESULTS = 20
MAX_QUERY = 2000
"""Characters of a query that are read."""


def search_tools(
    corpus: Corpus | str | Path | Iterable[Any], *, results: int = 3, snippet: int = 300, page: int = 4000
) -> tuple[FunctionTool, FunctionTool]:
    """The tools `search` and `read_document` over a corpus; `tools=search_tools("corpus.jsonl")`.

    Args:
        corpus: a file (`load_corpus`), documents (`Corpus.of`) or a corpus.
        results: how many documents a search shows where the call does not say `k`.
        snippet: characters of a document that a search shows.
        page: characters that `read_document` shows at once.

    Raises `DataError` for a corpus that cannot be read, `ValueError` for a size below 1.
    """
    if min(results, snippet, page) < 1 or results > MAX_RESULTS:
        raise ValueError(f"search_tools: results must be 1 to {MAX_RESULTS}, snippet and page above 0")
    known = as_corpus(corpus)

    def search(query: str, k: int = results) -> str:
        """Find documents by words, best first: each with its id and a piece of its text.

        Args:
            query: the words to look for
            k: how many documents to show
        """
        query = query[:MAX_QUERY].strip()
        if not query:
            raise ToolFailed("error: the query is empty: say which words to look for")
        if not 1 <= k <= MAX_RESULTS:
            raise ToolFailed(f"error: k must be 1 to {MAX_RESULTS}, got {k}")
        hits = known.search(query, k)
        if not hits:
            return f"No document has a word of {_short(query)!r}: try others."
        return "\n".join(_line(hit.document, query, snippet) for hit in hits)

    def read_document(id: str, start: int = 0) -> str:
        """Show the text of a document.

        Args:
            id: its id, as a search shows it in brackets
            start: the character to begin at, for long documents
        """
        document = _named(known, id)
        if not 0 <= start <= len(document.text):
            raise ToolFailed(f"error: start must be 0 to {len(document.text)}, the document's length, got {start}")
        shown, left = document.text[start : start + page], len(document.text) - start - page
        more = f"\n[{left:,} more characters: read on with start={start + page}]" if left > 0 else ""
        return f"{_heading(document)}\n{shown}{more}"

    cap = max(8000, MAX_RESULTS * (snippet + 200), page + 400)
    return tool(max_output=cap)(search), tool(max_output=cap)(read_document)


def as_corpus(given: Corpus | str | Path | Iterable[Any]) -> Corpus:
    """A corpus as it is, of a file, or of documents; raises `DataError`."""
    if isinstance(given, Corpus):
        return given
    return load_corpus(given) if isinstance(given, str | Path) else Corpus.of(given)


def shows(observation: str, document: Document) -> bool:
    """Whether a tool's answer shows (a piece of) a document."""
    return any(line.startswith(f"[{document.id}]") for line in observation.splitlines())


def _line(document: Document, query: str, size: int) -> str:
    return f"{_heading(document)}{':' if _says_title(document) else ''} {snippet_of(document.text, query, size)}"


def _heading(document: Document) -> str:
    return f"[{document.id}]" + (f" {' '.join(document.title.split())}" if _says_title(document) else "")


def _says_title(document: Document) -> bool:
    """A title that is the id already is not said twice."""
    return bool(document.title) and document.title != document.id


def _named(corpus: Corpus, id: str) -> Document:
    wanted = id.strip().removeprefix("[").removesuffix("]")
    found = corpus.get(id) or corpus.get(wanted)
    titled = corpus.titled(wanted) if found is None and wanted else []
    if found is not None or len(titled) == 1:
        return found or titled[0]
    near = titled or [hit.document for hit in corpus.search(wanted[:MAX_QUERY], 3)]
    hint = f"; near it: {', '.join(f'[{document.id}]' for document in near[:5])}" if near else ": search for one"
    raise ToolFailed(f"error: there is no document {_short(wanted)!r}{hint}")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
