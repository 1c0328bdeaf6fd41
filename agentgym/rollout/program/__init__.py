"""Somebody's own program as the agent: it calls an OpenAI-compatible endpoint, and behind that is the policy.

function      the program: a function of the user's, and how it is run
session       what is handed to it: where the endpoint is, the env's tools, a way to give rewards
server        HTTP on loopback: keys, paths, errors
wire          OpenAI's chat completions: requests read, answers written
branches      what was asked and answered as a tree of turns, in tokens
conversation  one program in one episode, from its start to the end of the episode
agent         what a worker's programs share
rehearsal     its first words before a run begins: what is broken from its first line is told there
"""
