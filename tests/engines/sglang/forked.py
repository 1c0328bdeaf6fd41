"""Fake servers that start at once: a process that has imported everything forks one for whoever asks.

python forked.py --hold SOCKET         the process that forks; it ends when its standard input is closed
python forked.py SOCKET ARGUMENTS...   stands for a server: it lives as long as that does, and that as long as it
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading


def hold(path: str) -> None:
    import importlib.util

    import torch

    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake_server.py")
    spec = importlib.util.spec_from_file_location("fake_server", place)
    assert spec is not None
    assert spec.loader is not None
    fake_server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake_server)
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401
    from transformers import AutoModelForCausalLM  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(0,), daemon=True).start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(16)
    os.rename(path + ".new", path)
    while True:
        caller, _ = listener.accept()
        told, descriptors, _, _ = socket.recv_fds(caller, 1 << 16, 1)
        if os.fork() == 0:
            listener.close()
            os.dup2(descriptors[0], 1)
            os.dup2(descriptors[0], 2)
            threading.Thread(target=_end_with, args=(caller.fileno(),), daemon=True).start()
            try:
                fake_server.run(json.loads(told))
            except SystemExit as e:
                print(e, flush=True)
            os._exit(1)
        caller.close()
        os.close(descriptors[0])


def stand_for(path: str, arguments: list[str]) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    socket.send_fds(server, [json.dumps(arguments).encode()], [1])
    threading.Thread(target=_end_with, args=(0,), daemon=True).start()
    server.recv(1)  # it never says anything: this is its end


def _end_with(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    if sys.argv[1] == "--hold":
        hold(sys.argv[2])
    else:
        stand_for(sys.argv[1], sys.argv[2:])
