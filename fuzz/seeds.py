"""Seeds for the fuzz targets: recorded answers and requests, and what a hostile
client writes. They go to the folder named by the argument; the recordings are at
CLAWGATE_RECORDINGS, else beside the workspace. Without them the few seeds below
are all there is.
"""

import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
RECORDINGS = pathlib.Path(os.environ.get("CLAWGATE_RECORDINGS") or HERE.parent / "../shared/recordings")
OUT = pathlib.Path(sys.argv[1])
# Longer recordings only make a target slow.
LONGEST = 8000
# As the target `usage` numbers them, by a recording's name for them.
PROTOCOLS = {
    "openai-chat": 0,
    "openai-completions": 1,
    "openai-responses": 2,
    "openai-embeddings": 3,
    "voyage": 3,
    "openai-audio": 4,
    "openai-images": 5,
    "rerank-openai": 6,
    "anthropic-messages": 7,
    "anthropic-complete": 8,
    "anthropic-count": 9,
    "gemini-count": 9,
    "gemini": 10,
    "gemini-embed": 11,
    "gemini-interactions": 12,
    "cohere-v1": 13,
    "cohere-v2": 13,
    "ollama-chat": 15,
    "ollama-generate": 15,
    "ollama-embed": 16,
    "dashscope": 17,
    "bedrock-converse": 19,
    "bedrock-invoke": 20,
}

PATHS = (
    "chat/completions v1/chat/completions responses embeddings models models/gpt-4o messages v1/messages "
    "messages/count_tokens v1beta/models/g:generateContent models/g:streamGenerateContent v2/chat api/chat "
    "openai/deployments/d/chat/completions model/anthropic.claude/converse files batches ../x %2e%2e/x "
    "chat/%252e%252e/completions chat/..%2fcompletions //chat/completions chat\\completions chat;x/completions "
    "v1/./chat/completions v1/%00/chat models/a%2fb:generateContent models/..;/x:generateContent models/%2e%2e"
).split()
ADDRESSES = (
    "10.0.0.0/8:443 127.0.0.0/8:* [fd00::]/8:443 vendor.example:443 none [::1]:80 fd00::/8:1 169.254.1.1:80"
).split()
URLS = (
    "https://api.openai.com/v1 http://127.0.0.1:1 https://2130706433/ https://0x7f.1/ https://[::1]:8/x "
    "https://[::ffff:10.0.0.1] https://u@h https://h:0 https://h/../x https://h.:443 https://H/ https://h%2f/ https://[64:ff9b::a00:1]"
).split()


def put(target, name, content):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(content)


def recording(folder):
    name = f"{folder.parent.name}-{folder.name}"
    meta = json.loads((folder / "meta.json").read_text())
    answer = (folder / "response.body").read_bytes()[:LONGEST]
    request = json.dumps(meta.get("request")).encode()
    if isinstance(meta.get("request"), dict) and len(request) <= LONGEST:
        put("peek", name, request)
        put("splice", name, request)
    protocol = str(meta.get("protocol"))
    put("usage", name, bytes([PROTOCOLS.get(protocol, 0), len(name)]) + answer)
    framing = str(meta.get("framing"))
    if framing == "sse":
        put("sse", name, bytes([len(name), 0]) + answer)
    elif "ndjson" in framing:
        put("ndjson", name, bytes([len(name)]) + answer)
    elif framing == "aws-eventstream":
        put("eventstream", name, bytes([len(name)]) + answer)


for number, path in enumerate(PATHS):
    for vendor in range(0, 33, 3):
        put("path", f"{number}-{vendor}", bytes([vendor, number % 2]) + path.encode())
for number, (rule, url) in enumerate((rule, url) for rule in ADDRESSES for url in URLS):
    address = bytes([number % 6, 1, 1, 187]) + bytes([10, 0, 0, 1] * 4)
    put("address", str(number), address + f"{rule}\n{url}".encode())
put("peek", "plain", b'{"model":"m","stream":true,"stream_options":{"include_usage":false},"max_tokens":7}')
put("splice", "plain", b'{"model":"m","generationConfig":{"maxOutputTokens":null},"stream_options":null}')
put("sse", "plain", b"\x00\x00event: a\r\ndata: {}\r\n\r\n: c\ndata: [DONE]\n\n")
put("ndjson", "plain", b'\x00{"a":"}"}\n[1]\n')
put("eventstream", "plain", b"\x00" + b"event" * 9)
found = sorted(RECORDINGS.glob("*/*/meta.json"))
for meta in found:
    recording(meta.parent)
print(f"seeds of {len(found)} recordings")
