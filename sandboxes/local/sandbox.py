"""The sandbox of the local backend."""

from __future__ import annotations

from agentgym.sandboxes.sessions import SessionSandbox


class LocalSandbox(SessionSandbox):
    """A session forked from the backend's zygote; see `SessionSandbox`."""

    scratch = '"$TMPDIR"/.snapshot.tar'
