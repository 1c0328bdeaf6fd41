"""Engines: token ids in; token ids, logprobs and policy versions out. Importing this costs nothing."""
