"""A loopback Hugging Face Hub: the HTTP endpoints that huggingface_hub asks for models and data sets, over a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves `root/models/OWNER/NAME/...` and `root/datasets/OWNER/NAME/...`, each at one commit.

    `/api/{models,datasets}/ID[/revision/R]` lists a repository, `/api/.../tree/R[/FOLDER]` a folder of it, and
    `/[datasets/]ID/resolve/R/FILE` is a file. What is not there is 404 with the error code that the client looks for.
    """

    root: ClassVar[Path]
    asked: ClassVar[list[str]]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.asked.append(f"{self.command} /{path}")
        if path.startswith("api/"):
            self._api(path.split("/")[1:], body)
            return
        kind = "datasets" if path.startswith("datasets/") else "models"
        repo, _, rest = path.removeprefix("datasets/").partition("/resolve/")
        folder, file = self.root / kind / repo, self.root / kind / repo / rest.partition("/")[2]
        if not folder.is_dir():
            self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        elif not file.is_file():
            self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = file.read_bytes()
            etag = hashlib.sha1(content).hexdigest()
            self._send(200, content, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _api(self, parts: list[str], body: bool) -> None:
        folder = self.root / "/".join(parts[:3])
        if not folder.is_dir():
            self._send(404, b'{"error": "Repository not found"}', body, {"X-Error-Code": "RepoNotFound"})
            return
        if "tree" in parts[3:4]:
            inside = folder / "/".join(parts[5:])
            if not inside.is_dir():
                self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
                return
            rows = [{"type": "file", "path": n, "size": 1, "oid": COMMIT} for n in self._files(folder, inside)]
            self._send(200, json.dumps(rows).encode(), body, {})
            return
        if "revision" in parts[3:4] and parts[4] not in ("main", COMMIT):
            self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": name} for name in self._files(folder, folder)]
        info = {"id": "/".join(parts[1:3]), "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
        self._send(200, json.dumps(info).encode(), body, {})

    @staticmethod
    def _files(folder: Path, inside: Path) -> list[str]:
        return sorted(str(path.relative_to(folder)) for path in inside.rglob("*") if path.is_file())

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Loopback:
    """A running hub: where it is, the folder it serves, what it was asked."""

    def __init__(self, root: Path):
        self.root, self.asked = root, list[str]()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("RootedHub", (Hub,), {"root": root, "asked": self.asked})
        )
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    loopback = Loopback(tmp_path_factory.mktemp("hub"))
    yield loopback
    loopback.close()


@pytest.fixture(scope="session")
def save_tiny() -> Callable[[str, Path], None]:
    """(family, folder): writes a tiny random model of that family with a byte-level tokenizer and a Qwen template."""
    return _save_tiny


def _save_tiny(family: str, folder: Path) -> None:
    import trl
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    marks = ["<|im_start|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>", additional_special_tokens=marks
    )
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text()
    end = tokenizer.eos_token_id
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=4096,
        tie_word_embeddings=True, eos_token_id=end, pad_token_id=end, bos_token_id=None,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
