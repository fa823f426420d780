"""Ollama's SDK. It has no key of its own: the bearer is a header."""

import ollama

from common import CHAT, HELLO, QUESTION, TOOL, cancelled, refusals, scenario, whole

MODEL = "llama3.2"
KEPT = []


def client(side, headers=None):
    bearer = {"authorization": f"Bearer {side.key}"}
    made = ollama.Client(host=side.url("ollama"), headers={**bearer, **(headers or {})})
    KEPT.append(made)
    return made


@scenario
def ollama_chat(side):
    return whole(client(side).chat(model=MODEL, messages=CHAT))


@scenario
def ollama_generate(side):
    return whole(client(side).generate(model=MODEL, prompt=HELLO))


@scenario
def ollama_tools(side):
    return whole(client(side).chat(model=MODEL, messages=QUESTION, tools=[TOOL]))


@scenario
def ollama_stream(side):
    return [whole(part) for part in client(side).chat(model=MODEL, messages=CHAT, stream=True)]


@scenario
def ollama_stream_tools(side):
    return [whole(part) for part in client(side).chat(model=MODEL, messages=QUESTION, tools=[TOOL], stream=True)]


@scenario
def ollama_embed(side):
    return whole(client(side).embed(model="all-minilm", input=HELLO))


def tell(error):
    return {"status": error.status_code, "error": error.error}


refusals(
    "ollama",
    lambda side, headers, suffix: client(side, headers).chat(model=MODEL + suffix, messages=CHAT),
    tell,
)


def start(side, headers):
    stream = client(side, headers).chat(model=MODEL, messages=CHAT, stream=True)
    return map(whole, stream), stream.close


cancelled("ollama", start)
