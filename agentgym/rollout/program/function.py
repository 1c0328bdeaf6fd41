"""The program: a function of the user's, what it asks for by the names of its parameters, and how it is run.

Async functions run in one event loop in a thread of its own, others in a thread each: what blocks there does not stop
the engine, nor the endpoint that it may be waiting for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import inspect
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError, ProgramFault
from agentgym.loading import load_object

GIVEN: Mapping[str, str] = {
    "task": "the env's Task",
    "messages": "the env's prompt, in OpenAI's shape",
    "tools": "the schemas of the env's tools",
    "base_url": "of the endpoint",
    "api_key": "of this episode",
    "model": "what the endpoint calls its model",
    "client": "an openai client for this episode: AsyncOpenAI, or OpenAI for a function that is not async",
    "session": "the env's tools, rewards by completion id, and all of the above",
}
"""What a program may have as parameters."""
CLOSING = 2.0
"""Seconds that the programs' loop has to end."""

Running = concurrent.futures.Future[Any]


@dataclass(frozen=True, slots=True)
class Program:
    """A function and the names of its parameters that are given to it."""

    function: Callable[..., Any]
    asks: tuple[str, ...]
    is_async: bool

    def blame(self, error: BaseException) -> str:
        """The last line of an error's traceback, and where in the program it was."""
        while isinstance(error, BaseExceptionGroup):  # a task group hides what went wrong
            error = error.exceptions[0]
        words = traceback.format_exception_only(error)[-1].strip().split("\n")[0]
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
        return f"{words} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else words


def load_program(reference: str) -> Program:
    """The program that `path.py:function` names; raises `ConfigError` for what cannot be called with what is given."""
    where = f"rollout.agent {reference!r}"
    function = load_object(reference, "rollout.agent")
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(f"{where}: expected a function, got {type(function).__name__}")
    return make_program(function, where)


def make_program(function: Callable[..., Any], where: str = "the agent") -> Program:
    """A function as a program; `where` begins the `ConfigError` that says what is wrong with it."""
    given = ", ".join(GIVEN)
    asks: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in GIVEN and parameter.kind is not parameter.POSITIONAL_ONLY:
            asks.append(name)
        elif parameter.default is parameter.empty:
            raise ConfigError(f"{where}: there is nothing to give for its parameter {name!r}; it may ask for {given}")
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
    if "client" in asks:
        _check_openai(where)
    return Program(function, tuple(asks), is_async)


def _check_openai(where: str) -> None:
    if importlib.util.find_spec("openai") is None:
        raise ConfigError(
            f"{where} asks for a client, and openai is not installed: pip install openai, or make a client of your own "
            "with base_url and api_key"
        )


class Stage:
    """Where the programs of a worker run."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._http: dict[bool, Any] = {}

    def begin(self, program: Program, given: Mapping[str, Any]) -> Running:
        """Start a program. Its future can be cancelled, which ends an async one; a thread cannot be ended."""
        if program.is_async:
            return asyncio.run_coroutine_threadsafe(_guarded(program, given), self._running_loop())
        done: Running = concurrent.futures.Future()
        threading.Thread(target=_in_thread, args=(program, given, done), name="program", daemon=True).start()
        return done

    def client(self, program: Program, base_url: str, api_key: str) -> Any:
        """An openai client. The HTTP client below it is shared: one costs more than an episode of a tiny model."""
        openai = importlib.import_module("openai")
        if program.is_async not in self._http:
            kind: Any = openai.DefaultAsyncHttpxClient if program.is_async else openai.DefaultHttpxClient
            self._http[program.is_async] = kind(trust_env=False, verify=False)
        make: Any = openai.AsyncOpenAI if program.is_async else openai.OpenAI
        return make(base_url=base_url, api_key=api_key, http_client=self._http[program.is_async])

    def close(self) -> None:
        """End the loop; programs that are under way are cancelled."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(CLOSING)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSING)  # a program may block it: the thread is a daemon

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=CLOSING / 2)
        if http := self._http.pop(True, None):
            await http.aclose()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name="programs", daemon=True)
            self._thread.start()
        return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


async def _guarded(program: Program, given: Mapping[str, Any]) -> Any:
    try:
        return await program.function(**given)
    except (SystemExit, KeyboardInterrupt) as e:  # they would end the loop of all programs
        raise ProgramFault(f"{type(e).__name__}: {e}") from e


def _in_thread(program: Program, given: Mapping[str, Any], done: Running) -> None:
    with suppress(concurrent.futures.InvalidStateError):  # nobody waits for it any more
        try:
            value = program.function(**given)
        except BaseException as e:
            done.set_exception(e)
        else:
            done.set_result(value)
