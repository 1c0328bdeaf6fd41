"""`python -m agentgym` is `agentgym`."""

from __future__ import annotations

from agentgym.cli import main

if __name__ == "__main__":
    main()
