"""A model behind an OpenAI-compatible endpoint (`/chat/completions`): OpenAI, SGLang, vLLM, llama.cpp, ...

What may pass (a timeout, 429, 5xx, an answer that is no chat completion) is tried again with growing pauses, a bounded
number of times; then, and at once for what will not pass, it is an `EngineFault`: the episode is unscored. The key is
sent to the endpoint and nowhere else: no record and no error holds it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from agentgym.errors import EngineFault, ModelError
from agentgym.types import FinishReason, Message, SamplingParams
from agentgym.weights import WeightUpdate

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the second attempt, doubled for each further one; and the most, also of what a server asks for."""
PASSING = (408, 409, 425, 429)
OVERLONG = ("context length", "context_length", "maximum context", "context window", "longer than the model")
"""How servers say that a conversation has outgrown the model's context."""
SHOWN = 200
"""Characters of a server's own words in an error."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A message; `tokens` is how many were sampled, None where the server did not say."""

    message: Message
    finish_reason: FinishReason
    tokens: int | None


class _Passing(Exception):
    """What may be gone at the next attempt; `pause`: seconds that the server asked for."""

    def __init__(self, text: str, pause: float | None = None):
        super().__init__(text)
        self.pause = pause


def is_endpoint(model: str) -> bool:
    """Whether a model is given by URL."""
    return model.startswith(("http://", "https://"))


def check_url(url: str) -> None:
    """Raises `ModelError` for a URL that leads to no host, or holds a secret: it is written into records."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as e:
        raise ModelError(f"the endpoint's URL cannot be read: {e}") from None
    if parts.userinfo or parts.query:
        raise ModelError("the endpoint's URL holds a user, password or query: give the key by OPENAI_API_KEY instead")
    if not parts.host:
        raise ModelError(f"the endpoint's URL {url!r} has no host; expected http://HOST:PORT/v1")


class ChatEndpoint:
    """Asks one model of one endpoint. `model` empty: the only one it lists; raises `ModelError` where that is not so,
    or the endpoint cannot be reached. timeout: seconds a request; retries: attempts beyond the first."""

    version = 0

    def __init__(
        self, url: str, model: str = "", *, key: str = "", timeout: float = 60.0, retries: int = 4, slots: int = 16
    ):
        check_url(url)
        self.name = f"endpoint {url.rstrip('/')}"
        self.slots = slots
        self._key, self._retries, self._timeout = key, retries, timeout
        self._options = _client_options(url, key, timeout, slots)
        self._limit_key = "max_tokens"
        self.stats = {"requests": 0.0, "retries": 0.0, "tokens": 0.0}
        self.model = model or self._only_model()
        self._client = httpx.AsyncClient(**self._options)

    async def chat(
        self, body: Mapping[str, Any], params: SamplingParams, troubled: Callable[[str], None] = lambda _: None
    ) -> ChatAnswer:
        """The model's next message after `body`'s messages; `troubled` is told why an attempt failed. A conversation
        too long for the model yields finish_reason "length" with no text. Raises `EngineFault`."""
        pause = FIRST_PAUSE
        for attempt in range(self._retries + 1):
            try:
                return await self._attempt(body, params)
            except _Passing as e:
                trouble = f"{self.name}: {self._safe(str(e))}"
                troubled(trouble)
                if attempt == self._retries:
                    raise EngineFault(f"{trouble} ({attempt + 1} attempts)") from None
                self.stats["retries"] += 1
                wait = pause * (0.5 + random.random() / 2) if e.pause is None else e.pause
                await asyncio.sleep(min(LONGEST_PAUSE, wait))
                pause *= 2
        raise AssertionError("unreachable")

    async def release(self, session: str) -> None:
        """There is nothing to forget: each request holds its whole conversation."""

    async def update_weights(self, update: WeightUpdate) -> None:
        raise EngineFault(f"{self.name}: its weights cannot be exchanged")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _attempt(self, body: Mapping[str, Any], params: SamplingParams) -> ChatAnswer:
        request = {
            "model": self.model,
            **body,
            "temperature": params.temperature,
            "seed": params.seed,
            self._limit_key: params.max_tokens,
        }
        self.stats["requests"] += 1
        try:
            async with asyncio.timeout(self._timeout):  # httpx's own is for each read: a trickle would never end
                # ASCII escapes: half of a surrogate pair, as models write it, has no other form
                response = await self._client.post("chat/completions", content=json.dumps(request).encode())
        except (TimeoutError, httpx.TimeoutException):
            raise _Passing(f"no answer within {self._timeout:g} s") from None
        except (httpx.TransportError, httpx.DecodingError) as e:
            raise _Passing(_reason(e)) from None
        if response.status_code == 200:
            return self._read(response)
        return self._refused(response)

    def _read(self, response: httpx.Response) -> ChatAnswer:
        try:
            answer = read_answer(response.json())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
            raise _Passing(f"the answer is no chat completion: {e or type(e).__name__}") from None
        self.stats["tokens"] += answer.tokens or 0
        return answer

    def _refused(self, response: httpx.Response) -> ChatAnswer:
        text = f"{_status(response)}"
        if response.status_code in PASSING or response.status_code >= 500:
            raise _Passing(text, retry_after(response.headers.get("retry-after", "")))
        if response.status_code in (400, 413, 422):
            low = response.text.lower()
            if any(words in low for words in OVERLONG):
                return ChatAnswer(Message("assistant"), "length", 0)
            if "max_completion_tokens" in low and self._limit_key == "max_tokens":
                self._limit_key = "max_completion_tokens"  # newer models of OpenAI's know it by that name only
                raise _Passing(text, 0.0)
            if "tool" in low:
                text += " (a server that takes no tools: --endpoint.tools=text)"
        raise EngineFault(f"{self.name}: {self._safe(text)}")

    def _only_model(self) -> str:
        """The one model that the endpoint lists."""
        try:
            with httpx.Client(**self._options) as client:
                response = self._patiently(client)
            if response.status_code != 200:
                raise ModelError(f"{self.name}: GET /models: {self._safe(_status(response))}{_advice(response)}")
            names = [str(row["id"]) for row in response.json()["data"]]
        except httpx.HTTPError as e:
            raise ModelError(f"{self.name}: cannot be reached: {_reason(e)}") from None
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{self.name}: GET /models gave no list: name it by --endpoint-model NAME") from None
        if len(names) != 1:
            listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise ModelError(f"{self.name}: which model? --endpoint-model NAME; it has: {listed or 'none'}")
        return names[0]

    def _patiently(self, client: httpx.Client) -> httpx.Response:
        """GET /models, with the pauses of a request."""
        pause = FIRST_PAUSE
        for _ in range(self._retries):
            try:
                response = client.get("models")
                if response.status_code not in PASSING and response.status_code < 500:
                    return response
            except httpx.ConnectError:
                raise  # nobody is there
            except httpx.TransportError:
                pass
            time.sleep(min(pause, LONGEST_PAUSE))
            pause *= 2
        return client.get("models")

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _client_options(url: str, key: str, timeout: float, connections: int) -> dict[str, Any]:
    if not key.isascii() or any(c.isspace() for c in key):
        raise ModelError("OPENAI_API_KEY holds blanks or letters that no key has")
    return {
        "base_url": url.rstrip("/"),
        "timeout": timeout,
        "headers": {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})},
        "limits": httpx.Limits(max_connections=connections),
        # no proxy leads back to this machine
        "trust_env": httpx.URL(url).host not in ("localhost", "127.0.0.1", "::1"),
    }


def read_answer(body: Any) -> ChatAnswer:
    """The answer in the body of a chat completion; raises `ValueError` and the like for what is none."""
    choice = body["choices"][0]
    row = choice["message"]
    message = Message.from_openai({**row, "role": "assistant"})
    if not isinstance(message.content, str) or not isinstance(message.reasoning, str | None):
        raise ValueError("content and reasoning must be text")
    usage = body.get("usage") or {}
    tokens = usage.get("completion_tokens")
    known = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
    finish_reason: FinishReason = "length" if choice.get("finish_reason") == "length" else "stop"
    return ChatAnswer(message, finish_reason, tokens if known else None)


def retry_after(value: str) -> float | None:
    """Seconds that a Retry-After header asks for (a number, or a date); None where it says nothing."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _status(response: httpx.Response) -> str:
    """429 Too Many Requests: what the server said of it."""
    try:
        body = response.json()
        error = body.get("error", body)
        said = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        said = response.text
    words = " ".join(str(said or "").split())
    status = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
    return f"{status}: {words[:SHOWN]}" if words else status


def _advice(response: httpx.Response) -> str:
    if response.status_code in (401, 403):
        return " (the key is read from OPENAI_API_KEY)"
    return " (is it the base URL, as http://HOST:PORT/v1?)" if response.status_code == 404 else ""


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
