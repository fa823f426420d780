"""Mistral's SDK."""

from functools import cache

from mistralai.client import Mistral

from common import CHAT, QUESTION, TOOL, cancelled, refusals, scenario

MODEL = "mistral-small-latest"


def whole(model):
    return model.model_dump(mode="json")


@cache
def client(side):
    return Mistral(api_key=side.key, server_url=side.url("mistral"))


def arguments(headers=None, **more):
    return {"model": MODEL, "messages": CHAT, "http_headers": headers, **more}


@scenario
def mistral_chat(side):
    return whole(client(side).chat.complete(**arguments()))


@scenario
def mistral_tools(side):
    return whole(client(side).chat.complete(**arguments(messages=QUESTION, tools=[TOOL])))


@scenario
def mistral_stream(side):
    return [whole(event) for event in client(side).chat.stream(**arguments())]


@scenario
def mistral_stream_tools(side):
    return [whole(event) for event in client(side).chat.stream(**arguments(messages=QUESTION, tools=[TOOL]))]


@scenario
def mistral_embeddings(side):
    return whole(client(side).embeddings.create(model="mistral-embed", inputs=["one", "two"]))


def tell(error):
    return {"status": error.status_code, "message": error.message, "body": error.body}


refusals(
    "mistral",
    lambda side, headers, suffix: client(side).chat.complete(**arguments(headers, model=MODEL + suffix)),
    tell,
)


def start(side, headers):
    stream = client(side).chat.stream(**arguments(headers))
    return map(whole, stream), stream.close


cancelled("mistral", start)
