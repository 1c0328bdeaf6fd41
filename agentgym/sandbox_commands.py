"""`agentgym sandbox`: where untrusted code runs. Part of the command line."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

sandbox_app = typer.Typer(
    name="sandbox", no_args_is_help=True, help="Where untrusted code runs: check, probe, measure."
)


@sandbox_app.callback()
def root() -> None:
    """Where untrusted code runs."""


@sandbox_app.command("build")
def build(
    dockerfile: Annotated[str, typer.Argument(metavar="DOCKERFILE_OR_FOLDER", help="What to build an image from.")],
    tag: Annotated[str | None, typer.Option("--tag", help="A name for it; none: one by its content.")] = None,
) -> None:
    """Build the image of a docker sandbox and print its tag; content that was built before is not built again.

    \b
    agentgym sandbox build tasks/17
    agentgym sandbox build Dockerfile --tag mine:1     # then SandboxSpec(image="mine:1")
    """
    from agentgym.sandboxes.docker import DockerBackend

    async def run() -> str:
        backend = DockerBackend()
        try:
            return await backend.build(dockerfile, tag)
        finally:
            await backend.aclose()

    print(asyncio.run(run()))
