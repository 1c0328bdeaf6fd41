"""An MCP server of a few lines and no package, for what a well-kept one does not do: die, hang, answer oddly.

Run as `python mcp_raw_server.py [MODE]`; MODE `silent` never answers, `dies` ends at once, `slow-list` and `many` list
their tools late or over many pages, `chatty` writes what is no message to stdout, `deaf` does
not notice the end of its stdin.
"""

import json
import os
import sys
import time

MODE = sys.argv[1] if len(sys.argv) > 1 else ""
TOOLS = ["echo", "pid", "count", "fail", "odd", "structured", "nothing", "die", "hang", "slow", "refuse", "long"]
ODD = [
    {"type": "text", "text": "a picture:"},
    {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
    {"type": "audio", "data": "aGVsbG8h", "mimeType": "audio/wav"},
    {"type": "resource", "resource": {"uri": "file:///a.txt", "text": "inside"}},
    {"type": "resource", "resource": {"uri": "file:///b.bin", "blob": "aGVsbG8=", "mimeType": "application/x"}},
    {"type": "resource_link", "uri": "file:///c", "name": "c"},
]
counted = 0


def call(name, arguments):
    global counted
    if name == "echo":
        return {"content": [{"type": "text", "text": json.dumps(arguments, sort_keys=True)}]}
    if name == "pid":
        return {"content": [{"type": "text", "text": str(os.getpid())}]}
    if name == "count":
        counted += 1
        return {"content": [{"type": "text", "text": str(counted)}]}
    if name == "fail":
        return {"content": [{"type": "text", "text": "no such row"}], "isError": True}
    if name == "odd":
        return {"content": ODD}
    if name == "structured":
        return {"content": [], "structuredContent": {"a": 1}}
    if name == "nothing":
        return {"content": []}
    if name == "long":
        return {"content": [{"type": "text", "text": "x" * 100_000}]}
    if name == "die":
        print("out of cheese", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "hang":
        time.sleep(600)
    return None


def answer(row):
    method, params = row.get("method"), row.get("params") or {}
    if method == "initialize":
        version = params["protocolVersion"]
        info = {"name": "raw", "version": "1"}
        return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "tools/list":
        if MODE == "slow-list":
            time.sleep(600)
        schema = {"type": "object", "properties": {"text": {"$ref": "#/$defs/T"}}, "$defs": {"T": {"type": "string"}}}
        page = int(params.get("cursor", 0))
        if MODE == "many":
            more = {"nextCursor": str(page + 1)} if page < 3 else {}
            return {"result": {"tools": [{"name": f"t{page}", "inputSchema": {"type": "object"}}], **more}}
        names = ["a.b", "a_b"] if MODE == "clash" else TOOLS
        return {"result": {"tools": [{"name": n, "description": f"Does {n}.", "inputSchema": schema} for n in names]}}
    if method == "tools/call":
        if params["name"] == "slow":  # it is there, but this call is never answered
            return None
        result = call(params["name"], params.get("arguments") or {})
        if result is not None:
            return {"result": result}
        return {"error": {"code": -32602, "message": f"{params['name']}: not like that"}}
    return {"error": {"code": -32601, "message": "no such method"}}


if MODE == "dies":
    sys.exit("cannot find my settings")
if MODE == "chatty":
    print("welcome to the server", flush=True)
    print('{"jsonrpc": "2.0", "odd": true}', flush=True)
print("ready when you are", file=sys.stderr, flush=True)
for line in sys.stdin:
    row = json.loads(line)
    if MODE == "silent" or "id" not in row:
        continue
    if (made := answer(row)) is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": row["id"], **made}), flush=True)
if MODE == "deaf":
    time.sleep(600)
