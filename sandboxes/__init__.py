"""Sandboxes: where untrusted code runs. One file or folder a backend, one seam (`agentgym.protocols.Sandbox`)."""
