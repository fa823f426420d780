"""Cohere's SDK, its second API."""

from functools import cache

import cohere

from common import CHAT, QUESTION, TOOL, cancelled, refusals, scenario, whole

MODEL = "command-a-03-2025"


@cache
def client(side):
    return cohere.ClientV2(api_key=side.key, base_url=side.url("cohere"))


def options(headers=None):
    return {"max_retries": 0, "additional_headers": headers or {}}


def arguments(headers=None, **more):
    return {"model": MODEL, "messages": CHAT, "request_options": options(headers), **more}


@scenario
def cohere_chat(side):
    return whole(client(side).chat(**arguments()))


@scenario
def cohere_chat_short(side):
    return whole(client(side).chat(**arguments(max_tokens=4)))


@scenario
def cohere_tools(side):
    return whole(client(side).chat(**arguments(messages=QUESTION, tools=[TOOL])))


@scenario
def cohere_stream(side):
    return [whole(event) for event in client(side).chat_stream(**arguments())]


@scenario
def cohere_stream_tools(side):
    return [whole(event) for event in client(side).chat_stream(**arguments(messages=QUESTION, tools=[TOOL]))]


def tell(error):
    return {"status": error.status_code, "body": error.body}


refusals(
    "cohere",
    lambda side, headers, suffix: client(side).chat(**arguments(headers, model=MODEL + suffix)),
    tell,
)


def start(side, headers):
    stream = client(side).chat_stream(**arguments(headers))
    return map(whole, stream), stream.close


cancelled("cohere", start)
