"""Images of the docker backend on a real engine: built from a Dockerfile, bounded, missing, unfit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import SandboxFault, SandboxUnavailable
from agentgym.execution import SandboxSpec
from agentgym.sandboxes.docker import DockerBackend
from agentgym.sandboxes.docker.owners import BUILT
from tests.sandboxes.conftest import IMAGE

Run = Callable[..., Any]

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_only")]


def test_an_image_of_its_own(backend: Any, client: Any, spec: SandboxSpec, tmp_path: Path, run: Run) -> None:
    (tmp_path / "Dockerfile").write_text(
        f'FROM {IMAGE}\nCOPY data.txt /testbed/data.txt\nENV GIVEN=yes\nWORKDIR /testbed\nENTRYPOINT ["false"]\n'
    )
    (tmp_path / "data.txt").write_text("seven")
    wanted = SandboxSpec(spec.limits, dockerfile=str(tmp_path), workdir="/testbed", user="root")
    box = run(backend.create(wanted))
    assert run(box.exec("import os; open('data.txt').read(), os.environ['GIVEN']")).result == "('seven', 'yes')"
    assert run(box.exec("open('data.txt', 'w').write('8')")).ok
    run(box.close())
    tag = run(backend.build(str(tmp_path / "Dockerfile")))
    first = client.inspect_image(tag)
    assert first["Config"]["Labels"][BUILT] == "1"
    assert run(backend.build(str(tmp_path), "agentgym-test-named:1")) == "agentgym-test-named:1"
    assert client.inspect_image("agentgym-test-named:1")["Id"] == first["Id"]
    (tmp_path / "data.txt").write_text("eight")
    assert run(backend.build(str(tmp_path))) != tag
    box = run(backend.create(wanted))
    assert run(box.exec("open('data.txt').read()")).result == "'eight'"
    run(box.close())


def test_built_images_are_bounded(client: Any, tmp_path: Path, run: Run) -> None:
    backend = DockerBackend(IMAGE, max_image_bytes=3 << 20)
    tags = []
    for i in range(3):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY data /data\n")
        (folder / "data").write_bytes(os.urandom(2 << 20))
        tags.append(run(backend.build(str(folder))))
    there = {tag for image in client.images() for tag in image["RepoTags"] or []}
    assert [tag for tag in tags if tag in there] == tags[-1:]
    run(backend.aclose())


def test_a_build_that_fails_says_why(backend: Any, tmp_path: Path, run: Run) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY missing /\n")
    with pytest.raises(SandboxUnavailable, match=r"could not be built(.|\n)*missing"):
        run(backend.build(str(tmp_path)))
    with pytest.raises(SandboxFault, match="no Dockerfile there"):
        run(backend.create(SandboxSpec(dockerfile=str(tmp_path / "none"))))


def test_images_that_are_not_there(spec: SandboxSpec, client: Any, run: Run) -> None:
    backend = DockerBackend(IMAGE, pull=False)
    with pytest.raises(
        SandboxUnavailable, match=r"image 'no/such:1' is not on the Docker engine, and pull is off(.|\n)*docker load"
    ):
        run(backend.create(SandboxSpec(spec.limits, image="no/such:1")))
    run(backend.aclose())
    backend = DockerBackend(IMAGE)
    with pytest.raises(
        SandboxUnavailable, match=r"image 'localhost:9/no/such' is not on the (.|\n)*could not be pulled"
    ):
        run(backend.create(SandboxSpec(spec.limits, image="localhost:9/no/such")))
    run(backend.aclose())


def test_an_image_without_python(backend: Any, spec: SandboxSpec, tmp_path: Path, run: Run) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    with pytest.raises(SandboxUnavailable, match="has no python3"):
        run(backend.create(SandboxSpec(spec.limits, dockerfile=str(tmp_path))))
