"""Images: there, pulled, or built from a Dockerfile under a tag that is its content's hash."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentgym.errors import SandboxFault, SandboxUnavailable
from agentgym.sandboxes.docker.engine import Engine, load_sdk
from agentgym.sandboxes.docker.owners import BUILT

REPOSITORY = "agentgym-built"
MAX_BYTES = 20 << 30
BUILD_SECONDS = 3600
SHOWN = 3000
"""Characters of a failed build's log, from its end."""


class Images:
    """All methods block; several threads may call them."""

    def __init__(self, engine: Engine, pull: bool = True, max_bytes: int = MAX_BYTES):
        self._engine = engine
        self._pull = pull
        self._max_bytes = max_bytes
        self._building: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def ready(self, image: str, dockerfile: str) -> str:
        """The image by which a container can be made; raises `SandboxUnavailable` where there is no way to it."""
        if dockerfile:
            return self.build(dockerfile)
        with self._building[image]:
            if not self._there(image):
                self._fetch(image)
        return image

    def _there(self, image: str) -> bool:
        with self._engine.errors(f"image {image!r} cannot be looked up"):  # which first says so where there is no SDK
            from docker.errors import ImageNotFound

            try:
                self._engine.client.inspect_image(image)
            except ImageNotFound:
                return False
            return True

    def _fetch(self, image: str) -> None:
        do = f"`docker pull {image}` or `docker load` it there, or name another one"
        if not self._pull:
            raise SandboxUnavailable(f"image {image!r} is not on the Docker engine, and pull is off: {do}")
        repository, tag = image, None
        if "@" not in image and ":" not in image.rpartition("/")[2]:
            tag = "latest"
        try:
            with self._engine.errors("it could not be pulled"):
                self._engine.client.pull(repository, tag=tag)
        except SandboxFault as e:
            raise SandboxUnavailable(f"image {image!r} is not on the Docker engine, and {e}; {do}") from e

    def build(self, dockerfile: str, tag: str | None = None) -> str:
        """The tag of the built image. Content that was built before is not built again."""
        folder, name = _places(dockerfile)
        built = f"{REPOSITORY}:{_content_hash(folder, name)}"
        with self._building[built]:
            if not self._there(built):
                self._run_build(folder, name, built)
                self._make_room(built)
            with self._engine.errors(f"image {built} could not be tagged"):
                self._engine.client.tag(built, *_split(built))  # the engine notes when: its last use
                if tag is not None:
                    self._engine.client.tag(built, *_split(tag))
        return tag or built

    def _run_build(self, folder: Path, name: str, tag: str) -> None:
        client, log = self._engine.client, ""
        what = f"the image of {folder / name} could not be built"
        with self._engine.errors(what):
            told = client.build(
                path=str(folder),
                dockerfile=name,
                tag=tag,
                rm=True,
                forcerm=True,
                labels={BUILT: "1"},
                timeout=BUILD_SECONDS,
                decode=True,
            )
            for line in told:
                log = (log + line.get("stream", ""))[-SHOWN:]
                if "error" in line:
                    raise SandboxUnavailable(f"{what}: {line['error']}\n{log.strip()}")

    def _make_room(self, kept: str) -> None:
        """Remove built images, those not used for longest first, until the rest is within the bound."""
        from docker.errors import DockerException

        with contextlib.suppress(SandboxFault), self._engine.errors("images could not be counted"):
            found = [image for image in self._engine.client.df()["Images"] or [] if BUILT in (image["Labels"] or {})]
            total = sum(_bytes(image) for image in found)
            for image in sorted(found, key=lambda image: self._last_use(image["Id"])):
                if total <= self._max_bytes:
                    return
                tags = image["RepoTags"] or [image["Id"]]
                named = any(not tag.startswith((REPOSITORY, "sha256:")) for tag in tags)  # someone's own tag
                if named or kept in tags or image.get("Containers", 0) > 0:
                    continue
                with contextlib.suppress(DockerException):  # in use after all
                    for tag in tags:
                        self._engine.client.remove_image(tag)
                    total -= _bytes(image)

    def _last_use(self, image: str) -> str:
        told: dict[str, Any] = self._engine.client.inspect_image(image)
        return str((told.get("Metadata") or {}).get("LastTagTime") or told.get("Created") or "")


def _bytes(image: dict[str, Any]) -> int:
    """What goes with it: the layers that it shares stay."""
    return int(image["Size"]) - max(0, int(image.get("SharedSize", 0)))


def _split(tag: str) -> tuple[str, str]:
    repository, colon, name = tag.rpartition(":")
    return (repository, name) if colon and "/" not in name else (tag, "latest")


def _places(dockerfile: str) -> tuple[Path, str]:
    """(the folder that is sent, the Dockerfile's name in it)."""
    path = Path(dockerfile).expanduser().resolve()
    found = path / "Dockerfile" if path.is_dir() else path
    if not found.is_file():
        raise SandboxUnavailable(f"{dockerfile}: no Dockerfile there")
    return found.parent, found.name


def _content_hash(folder: Path, name: str) -> str:
    """Of all that the build gets to see: names, modes and contents; what .dockerignore names is left out."""
    hashed = hashlib.sha256(name.encode())
    for path in _sent(folder, name):
        whole = folder / path
        about = whole.lstat()
        kind = "link" if whole.is_symlink() else "folder" if whole.is_dir() else "file"
        hashed.update(
            f"\0{path}\0{kind}\0{about.st_mode & 0o777:o}\0{about.st_size if kind == 'file' else 0}\0".encode()
        )
        if kind == "link":
            hashed.update(str(whole.readlink()).encode())
        elif kind == "file":
            with whole.open("rb") as file:
                while part := file.read(1 << 20):
                    hashed.update(part)
    return hashed.hexdigest()[:24]


def _sent(folder: Path, name: str) -> Iterator[str]:
    load_sdk()
    from docker.utils.build import exclude_paths

    ignore = folder / ".dockerignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    yield from sorted(exclude_paths(str(folder), patterns, name))
