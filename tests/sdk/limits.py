"""The official SDKs at a rate limit: refused once without retries, served with
the retries they make by default.

Prints one JSON object per SDK: the refusal's code and retry-after, and how long
the call that waited took. The key comes from LIMITS_KEY, base URLs from the
arguments.
"""

import json
import os
import sys
import time

import anthropic
import openai

OPENAI_URL, ANTHROPIC_URL = sys.argv[1:3]
KEY = os.environ["LIMITS_KEY"]
HELLO = [{"role": "user", "content": "Say hello."}]


def measure(name, client, refused, call):
    eager = client.with_options(max_retries=0)
    code = wait = None
    for _ in range(100):
        try:
            call(eager)
        except refused as error:
            code = error.response.json()["error"]["code"]
            wait = int(error.response.headers["retry-after"])
            break
    began = time.monotonic()
    call(client)
    print(json.dumps({"name": name, "code": code, "retry_after": wait, "seconds": time.monotonic() - began}))


measure(
    "openai",
    openai.OpenAI(base_url=OPENAI_URL, api_key=KEY),
    openai.RateLimitError,
    lambda client: client.chat.completions.create(model="gpt-4o-mini", messages=HELLO),
)
measure(
    "anthropic",
    anthropic.Anthropic(base_url=ANTHROPIC_URL, api_key=KEY),
    anthropic.RateLimitError,
    lambda client: client.messages.create(model="claude-sonnet-4-5", max_tokens=20, messages=HELLO),
)
