"""The OpenAI SDK."""

from functools import cache

import openai

from common import CHAT, FUNCTION, QUESTION, TOOL, cancelled, refusals, scenario, whole

MODEL = "gpt-4o-mini"


@cache
def client(side):
    return openai.OpenAI(base_url=side.url("openai"), api_key=side.key, max_retries=0)


def chat(side, **more):
    arguments = {"model": MODEL, "messages": CHAT, **more}
    return client(side).chat.completions.create(**arguments)


@scenario
def openai_chat(side):
    return whole(chat(side))


@scenario
def openai_chat_several_choices(side):
    return whole(chat(side, n=2, max_tokens=20))


@scenario
def openai_chat_tools(side):
    return whole(chat(side, messages=QUESTION, tools=[TOOL]))


@scenario
def openai_chat_stream(side):
    return [whole(chunk) for chunk in chat(side, stream=True)]


@scenario
def openai_chat_stream_usage(side):
    return [whole(chunk) for chunk in chat(side, stream=True, stream_options={"include_usage": True})]


@scenario
def openai_chat_stream_tools(side):
    return [whole(chunk) for chunk in chat(side, messages=QUESTION, tools=[TOOL], stream=True)]


@scenario
def openai_chat_stream_helper(side):
    with client(side).chat.completions.stream(model=MODEL, messages=CHAT) as stream:
        kinds = [event.type for event in stream]
        return {"kinds": kinds, "completion": whole(stream.get_final_completion())}


@scenario
def openai_responses(side):
    return whole(client(side).responses.create(model=MODEL, input="Say hello."))


@scenario
def openai_responses_stream(side):
    return [whole(event) for event in client(side).responses.create(model=MODEL, input="Say hello.", stream=True)]


RESPONSES_TOOL = {"type": "function", "strict": False, **FUNCTION}


@scenario
def openai_responses_tools(side):
    return whole(client(side).responses.create(model=MODEL, input="Weather in Oslo?", tools=[RESPONSES_TOOL]))


@scenario
def openai_responses_stream_tools(side):
    arguments = {"model": MODEL, "input": "Weather in Oslo?", "tools": [RESPONSES_TOOL], "stream": True}
    return [whole(event) for event in client(side).responses.create(**arguments)]


@scenario
def openai_embeddings(side):
    return whole(client(side).embeddings.create(model="text-embedding-3-small", input=["one", "two"]))


@scenario
def openai_models(side):
    return [whole(model) for model in client(side).models.list()]


def tell(error):
    names = ("status_code", "body", "code", "param", "type", "message")
    return {name: getattr(error, name, None) for name in names}


refusals(
    "openai",
    lambda side, headers, suffix: chat(side, model=MODEL + suffix, extra_headers=headers),
    tell,
)
refusals(
    "openai_stream",
    lambda side, headers, suffix: chat(side, model=MODEL + "-stream" + suffix, stream=True, extra_headers=headers),
    tell,
)
refusals(
    "openai_responses",
    lambda side, headers, suffix: client(side).responses.create(
        model=MODEL + "-responses" + suffix, input="Hello.", extra_headers=headers
    ),
    tell,
)


def start(side, headers):
    stream = chat(side, stream=True, extra_headers=headers)
    return map(whole, stream), stream.close


def start_responses(side, headers):
    stream = client(side).responses.create(model=MODEL, input="Say hello.", stream=True, extra_headers=headers)
    return map(whole, stream), stream.close


cancelled("openai", start)
cancelled("openai_responses", start_responses)
