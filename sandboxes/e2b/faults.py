"""What the SDK's errors mean: whose mistake it was, and what can be done."""

from __future__ import annotations

import re

import httpx
from e2b.exceptions import (
    AuthenticationException,
    FileNotFoundException,
    NotEnoughSpaceException,
    NotFoundException,
    RateLimitException,
    SandboxException,
    SandboxNotRunningException,
    ServiceBusyException,
    TimeoutException,
)

from agentgym.errors import SandboxFault, SandboxFileError, SandboxUnavailable

_FILE_WORDS = ("permission denied", "is a directory", "not a directory", "read-only", "file name too long")


def refused(e: Exception) -> SandboxFault | None:
    """A refusal that left the sandbox as it was: the key, or a rate; None for anything else."""
    # what runs code answers without the error classes that the rest of E2B has
    status = re.match(r"(\d{3}) ", str(e)) if isinstance(e, SandboxException) else None
    code = status.group(1) if status else ""
    if isinstance(e, AuthenticationException) or code in ("401", "403"):
        return SandboxUnavailable(f"E2B refused the key in E2B_API_KEY: {one_line(e)}")
    if isinstance(e, RateLimitException) or code == "429":
        return SandboxFault(f"E2B limits how much is asked of it; hold fewer sandboxes at once: {one_line(e)}")
    if isinstance(e, ServiceBusyException):
        return SandboxFault(f"E2B has no room just now: {one_line(e)}")
    return None


def of_creation(e: Exception, template: str) -> SandboxFault:
    if known := refused(e):
        return known
    if isinstance(e, httpx.TransportError | TimeoutException | OSError):
        return SandboxUnavailable(f"E2B cannot be reached: {one_line(e)}")
    status = e.status_code if isinstance(e, SandboxException) else None
    if status in (400, 403, 404):
        named = f" (template {template!r})" if template else ""
        return SandboxUnavailable(f"E2B makes no such sandbox{named}: {one_line(e)}")
    return SandboxFault(f"E2B made no sandbox: {one_line(e)}")


def of_file(e: Exception, path: str) -> SandboxFault | SandboxFileError:
    if known := refused(e):
        return known
    text = str(e)
    if isinstance(e, FileNotFoundException | NotFoundException) and "sandbox" not in text.lower():
        return SandboxFileError(f"{path}: No such file")
    if isinstance(e, NotEnoughSpaceException):
        return SandboxFileError(f"{path}: No space left: {one_line(e)}")
    if isinstance(e, SandboxException) and any(word in text.lower() for word in _FILE_WORDS):
        return SandboxFileError(f"{path}: {one_line(e)}")
    return SandboxFault(f"the e2b sandbox failed over {path}: {one_line(e)}")


def is_deadline(e: Exception) -> bool:
    """Whether it may be the call's own deadline: a sandbox that is gone raises a timeout too."""
    gone = isinstance(e, SandboxNotRunningException) or "sandbox" in str(e).lower()
    return isinstance(e, TimeoutError) or (isinstance(e, TimeoutException) and not gone)


def one_line(e: Exception) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
