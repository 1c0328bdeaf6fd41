"""Which of a machine's networks the ranks talk over."""

from __future__ import annotations

import os
import socket

import psutil


def talk_from(address: str) -> None:
    """Have gloo use the interface that has this address. By itself it takes the one that the host's name resolves to, which
    on many machines is the loop-back device. What the user has set is left."""
    if name := interface_of(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str:
    """Name of the interface with that IP address; empty where there is none."""
    families = (socket.AF_INET, socket.AF_INET6)
    for name, held in psutil.net_if_addrs().items():
        if any(each.family in families and each.address.partition("%")[0] == address for each in held):
            return name
    return ""
