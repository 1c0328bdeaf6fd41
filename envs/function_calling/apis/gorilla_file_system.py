"""A file system in memory, with the commands of a shell, each on names of the current directory."""

from __future__ import annotations

import copy
from itertools import zip_longest
from typing import Any, TypeAlias

from agentgym.envs.function_calling.apis.base import Api, RefusedError

Node: TypeAlias = dict[str, Any]
"""{"type": "directory", "contents": {name: node}} or {"type": "file", "content": text}."""


def _new_directory() -> Node:
    return {"type": "directory", "contents": {}}


def _new_file(content: str = "") -> Node:
    return {"type": "file", "content": content}


def _is_directory(node: Node) -> bool:
    return bool(node["type"] == "directory")


class GorillaFileSystem(Api):
    name = "GorillaFileSystem"
    docs = "gorilla_file_system"

    def load(self, config: dict[str, Any]) -> None:
        roots = config.get("root") or {"workspace": _new_directory()}
        if not isinstance(roots, dict):
            raise ValueError("GorillaFileSystem: root: expected a directory by name")
        name, node = next(iter(roots.items()))  # where a row has several, its answer stands in the first
        self.root: Node = {"name": name, **_checked(node, name)}
        self._path: list[str] = []  # below the root; where one stands is no part of the state

    # -- looking ---------------------------------------------------------------------------------------------------

    def pwd(self) -> dict[str, Any]:
        return {"current_working_directory": "/" + "/".join([self.root["name"], *self._path])}

    def ls(self, a: bool = False) -> dict[str, Any]:
        return {"current_directory_content": [name for name in self._here if a or not name.startswith(".")]}

    def cd(self, folder: str) -> dict[str, Any]:
        if folder == "..":
            if not self._path:
                raise RefusedError("cd: already at the root directory")
            self._path.pop()
        elif folder not in (".", "", "./"):
            wanted = folder.rstrip("/")
            if wanted not in self._here or not _is_directory(self._here[wanted]):
                raise RefusedError(f"cd: {folder}: no such directory")
            self._path.append(wanted)
        return self.pwd()

    def cat(self, file_name: str) -> dict[str, Any]:
        return {"file_content": self._file("cat", file_name)["content"]}

    def tail(self, file_name: str, lines: int = 10) -> dict[str, Any]:
        text = self._file("tail", file_name)["content"].splitlines()
        return {"last_lines": "\n".join(text[-lines:] if lines > 0 else [])}

    def grep(self, file_name: str, pattern: str) -> dict[str, Any]:
        lines = self._file("grep", file_name)["content"].splitlines()
        return {"matching_lines": [line for line in lines if pattern in line]}

    def sort(self, file_name: str) -> dict[str, Any]:
        return {"sorted_content": "\n".join(sorted(self._file("sort", file_name)["content"].splitlines()))}

    def wc(self, file_name: str, mode: str = "l") -> dict[str, Any]:
        text: str = self._file("wc", file_name)["content"]
        counts = {
            "l": ("lines", len(text.splitlines())),
            "w": ("words", len(text.split())),
            "c": ("characters", len(text)),
        }
        if mode not in counts:
            raise RefusedError(f"wc: mode {mode!r}: expected l, w or c")
        unit, count = counts[mode]
        return {"count": count, "type": unit}

    def diff(self, file_name1: str, file_name2: str) -> dict[str, Any]:
        one, other = (self._file("diff", name)["content"].splitlines() for name in (file_name1, file_name2))
        lines: list[str] = []
        for mine, theirs in zip_longest(one, other):
            if mine != theirs:
                lines += [f"- {mine}"] if mine is not None else []
                lines += [f"+ {theirs}"] if theirs is not None else []
        return {"diff_lines": "\n".join(lines)}

    def du(self, human_readable: bool = False) -> dict[str, Any]:
        size = float(_size({"type": "directory", "contents": self._here}))
        if not human_readable:
            return {"disk_usage": f"{size:.0f} bytes"}
        for unit in ("B", "KB", "MB"):
            if size < 1024:
                return {"disk_usage": f"{size:.2f} {unit}"}
            size /= 1024
        return {"disk_usage": f"{size:.2f} GB"}

    def find(self, path: str = ".", name: str | None = None) -> dict[str, Any]:
        contents, prefix = self._here, path.rstrip("/") or "."
        for part in path.split("/"):
            if part not in ("", "."):
                if part not in contents or not _is_directory(contents[part]):
                    raise RefusedError(f"find: {path}: no such directory")
                contents = contents[part]["contents"]
        matches: list[str] = []
        _search(contents, prefix, "" if name in (None, "None") else str(name), matches)
        return {"matches": matches}

    # -- changing --------------------------------------------------------------------------------------------------

    def mkdir(self, dir_name: str) -> dict[str, Any]:
        self._here[self._free("mkdir", dir_name)] = _new_directory()
        return {}

    def touch(self, file_name: str) -> dict[str, Any]:
        self._here[self._free("touch", file_name)] = _new_file()
        return {}

    def echo(self, content: str, file_name: str | None = None) -> dict[str, Any]:
        if file_name in (None, "None"):
            return {"terminal_output": content}
        name = _local("echo", str(file_name))
        if name in self._here and _is_directory(self._here[name]):
            raise RefusedError(f"echo: {name}: is a directory")
        self._here[name] = _new_file(content)
        return {"terminal_output": None}

    def cp(self, source: str, destination: str) -> dict[str, Any]:
        node, place, name = self._transfer("cp", source, destination)
        place[name] = copy.deepcopy(node)
        return {"result": f"'{source}' copied to '{destination}'"}

    def mv(self, source: str, destination: str) -> dict[str, Any]:
        node, place, name = self._transfer("mv", source, destination)
        del self._here[source]
        place[name] = node
        return {"result": f"'{source}' moved to '{destination}'"}

    def rm(self, file_name: str) -> dict[str, Any]:
        self._node("rm", file_name)
        del self._here[file_name]
        return {"result": f"'{file_name}' removed"}

    def rmdir(self, dir_name: str) -> dict[str, Any]:
        node = self._node("rmdir", dir_name)
        if not _is_directory(node):
            raise RefusedError(f"rmdir: {dir_name}: not a directory")
        if node["contents"]:
            raise RefusedError(f"rmdir: {dir_name}: directory not empty")
        del self._here[dir_name]
        return {"result": f"'{dir_name}' removed"}

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _here(self) -> dict[str, Node]:
        contents: dict[str, Node] = self.root["contents"]
        for part in self._path:
            contents = contents[part]["contents"]
        return contents

    def _node(self, command: str, name: str) -> Node:
        if _local(command, name) not in self._here:
            raise RefusedError(f"{command}: {name}: no such file or directory")
        return self._here[name]

    def _file(self, command: str, name: str) -> Node:
        node = self._node(command, name)
        if _is_directory(node):
            raise RefusedError(f"{command}: {name}: is a directory")
        return node

    def _free(self, command: str, name: str) -> str:
        if _local(command, name) in self._here:
            raise RefusedError(f"{command}: {name}: exists already")
        return name

    def _transfer(self, command: str, source: str, destination: str) -> tuple[Node, dict[str, Node], str]:
        """(what goes, the directory that it goes into, its name there)"""
        node = self._node(command, source)
        target = self._here.get(_local(command, destination.rstrip("/")))
        if target is None:
            return node, self._here, destination.rstrip("/")
        if target is node:
            raise RefusedError(f"{command}: '{source}' and '{destination}' are the same")
        if not _is_directory(target):
            if _is_directory(node):
                raise RefusedError(f"{command}: {destination}: exists already")
            return node, self._here, destination
        if source in target["contents"]:
            raise RefusedError(f"{command}: {destination}/{source}: exists already")
        return node, target["contents"], source


def _local(command: str, name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise RefusedError(f"{command}: {name!r}: give a name of the current directory, not a path")
    return name


def _checked(node: Any, where: str) -> Node:
    if not isinstance(node, dict) or node.get("type") not in ("directory", "file"):
        raise ValueError(f"GorillaFileSystem: {where}: expected a directory or a file")
    if not _is_directory(node):
        return _new_file(str(node.get("content", "")))
    contents = node.get("contents") or {}
    return {"type": "directory", "contents": {name: _checked(inner, name) for name, inner in contents.items()}}


def _size(node: Node) -> int:
    if _is_directory(node):
        return sum(_size(inner) for inner in node["contents"].values())
    return len(node["content"].encode())


def _search(contents: dict[str, Node], prefix: str, name: str, matches: list[str]) -> None:
    for key, node in contents.items():
        path = f"{prefix}/{key}"
        if name in key:
            matches.append(path)
        if _is_directory(node):
            _search(node["contents"], path, name, matches)
