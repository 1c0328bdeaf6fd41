"""Play and learn on many machines: workers, servers and ranks as Ray actors (extra `cluster`)."""
