"""Play on many machines: rollout workers as Ray actors (extra `cluster`)."""
