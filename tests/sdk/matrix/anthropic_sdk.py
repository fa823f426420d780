"""The Anthropic SDK."""

from functools import cache

import anthropic

from common import HELLO, QUESTION, SYSTEM, WEATHER, cancelled, refusals, scenario, whole

MODEL = "claude-sonnet-4-5"
TOOLS = [{"name": "get_weather", "description": "Weather", "input_schema": WEATHER}]


@cache
def client(side):
    return anthropic.Anthropic(base_url=side.url("anthropic"), api_key=side.key, max_retries=0)


def messages(side):
    return client(side).messages


def arguments(**more):
    hello = [{"role": "user", "content": HELLO}]
    return {"model": MODEL, "max_tokens": 64, "system": SYSTEM, "messages": hello, **more}


@scenario
def anthropic_message(side):
    return whole(messages(side).create(**arguments()))


@scenario
def anthropic_tools(side):
    return whole(messages(side).create(**arguments(messages=QUESTION, tools=TOOLS)))


@scenario
def anthropic_stream(side):
    return [whole(event) for event in messages(side).create(**arguments(stream=True))]


@scenario
def anthropic_stream_helper(side):
    with messages(side).stream(**arguments()) as stream:
        text = "".join(stream.text_stream)
        return {"text": text, "message": whole(stream.get_final_message())}


@scenario
def anthropic_stream_tools(side):
    with messages(side).stream(**arguments(messages=QUESTION, tools=TOOLS)) as stream:
        return whole(stream.get_final_message())


@scenario
def anthropic_count_tokens(side):
    counted = arguments()
    del counted["max_tokens"]
    return whole(messages(side).count_tokens(**counted))


@scenario
def anthropic_models(side):
    return [whole(model) for model in client(side).models.list()]


def tell(error):
    return {name: getattr(error, name, None) for name in ("status_code", "body", "message", "type")}


refusals(
    "anthropic",
    lambda side, headers, suffix: messages(side).create(**arguments(model=MODEL + suffix, extra_headers=headers)),
    tell,
)
refusals(
    "anthropic_stream",
    lambda side, headers, suffix: messages(side).create(
        **arguments(model=MODEL + "-stream" + suffix, stream=True, extra_headers=headers)
    ),
    tell,
)


def start(side, headers):
    stream = messages(side).create(**arguments(max_tokens=1000, stream=True, extra_headers=headers))
    return map(whole, stream), stream.close


cancelled("anthropic", start)
