"""The official SDKs, unmodified but for base URL and key, and what they make of
the answers.

Prints one JSON object per scenario, {"name": …, "dump": …}. Run once against the
mock vendor and once through the gateway, the two outputs must be equal.

Keys come from the environment (DUMP_OPENAI_KEY, DUMP_ANTHROPIC_KEY,
DUMP_GOOGLE_KEY), base URLs from the arguments.
"""

import json
import os
import sys

import anthropic
import openai
from google import genai
from google.genai import types

OPENAI_URL, ANTHROPIC_URL, GOOGLE_URL = sys.argv[1:4]

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello to the world."}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
OPENAI_TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}
SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


def whole(model):
    """A response object without what is about the connection."""
    return model.model_dump(mode="json", exclude={"sdk_http_response"})


# A client that is collected closes its connections, so all three are kept.
OPENAI = openai.OpenAI(base_url=OPENAI_URL, api_key=os.environ["DUMP_OPENAI_KEY"], max_retries=0)
ANTHROPIC = anthropic.Anthropic(base_url=ANTHROPIC_URL, api_key=os.environ["DUMP_ANTHROPIC_KEY"], max_retries=0)
GOOGLE = genai.Client(api_key=os.environ["DUMP_GOOGLE_KEY"], http_options=types.HttpOptions(base_url=GOOGLE_URL))


@scenario
def openai_chat():
    return whole(OPENAI.chat.completions.create(model="gpt-4o-mini", messages=CHAT))


@scenario
def openai_chat_several_choices():
    return whole(OPENAI.chat.completions.create(model="gpt-4o-mini", messages=CHAT, n=2, max_tokens=20))


@scenario
def openai_chat_tools():
    return whole(OPENAI.chat.completions.create(model="gpt-4o-mini", messages=CHAT, tools=[OPENAI_TOOL]))


@scenario
def openai_chat_stream():
    stream = OPENAI.chat.completions.create(model="gpt-4o-mini", messages=CHAT, stream=True)
    return [whole(chunk) for chunk in stream]


@scenario
def openai_chat_stream_usage():
    stream = OPENAI.chat.completions.create(
        model="gpt-4o-mini", messages=CHAT, stream=True, stream_options={"include_usage": True}
    )
    return [whole(chunk) for chunk in stream]


@scenario
def openai_chat_stream_tools():
    stream = OPENAI.chat.completions.create(
        model="gpt-4o-mini", messages=CHAT, tools=[OPENAI_TOOL], stream=True
    )
    return [whole(chunk) for chunk in stream]


@scenario
def openai_responses():
    return whole(OPENAI.responses.create(model="gpt-4o-mini", input="Say hello."))


@scenario
def openai_responses_stream():
    stream = OPENAI.responses.create(model="gpt-4o-mini", input="Say hello.", stream=True)
    return [whole(event) for event in stream]


@scenario
def openai_responses_tools():
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}
    return whole(OPENAI.responses.create(model="gpt-4o-mini", input="Weather in Oslo?", tools=[tool]))


@scenario
def openai_embeddings():
    return whole(OPENAI.embeddings.create(model="text-embedding-3-small", input=["one", "two"]))


@scenario
def openai_error():
    try:
        OPENAI.chat.completions.create(
            model="gpt-4o-mini", messages=CHAT, extra_headers={"x-mock-status": "422"}
        )
    except openai.APIStatusError as error:
        return {"status": error.status_code, "body": error.body}
    return "no error"


def anthropic_arguments(**more):
    messages = [{"role": "user", "content": "Say hello to the world."}]
    return dict(model="claude-sonnet-4-5", max_tokens=64, system="Be brief.", messages=messages, **more)


ANTHROPIC_TOOLS = [{"name": "get_weather", "description": "Weather", "input_schema": WEATHER}]


@scenario
def anthropic_message():
    return whole(ANTHROPIC.messages.create(**anthropic_arguments()))


@scenario
def anthropic_tools():
    return whole(ANTHROPIC.messages.create(**anthropic_arguments(tools=ANTHROPIC_TOOLS)))


@scenario
def anthropic_events():
    return [whole(event) for event in ANTHROPIC.messages.create(**anthropic_arguments(stream=True))]


@scenario
def anthropic_stream_helper():
    with ANTHROPIC.messages.stream(**anthropic_arguments()) as stream:
        text = "".join(stream.text_stream)
        return {"text": text, "message": whole(stream.get_final_message())}


@scenario
def anthropic_stream_tools():
    with ANTHROPIC.messages.stream(**anthropic_arguments(tools=ANTHROPIC_TOOLS)) as stream:
        return whole(stream.get_final_message())


@scenario
def anthropic_count_tokens():
    arguments = anthropic_arguments()
    del arguments["max_tokens"]
    return whole(ANTHROPIC.messages.count_tokens(**arguments))


@scenario
def anthropic_error():
    try:
        ANTHROPIC.messages.create(**anthropic_arguments(extra_headers={"x-mock-status": "422"}))
    except anthropic.APIStatusError as error:
        return {"status": error.status_code, "body": error.body}
    return "no error"


GOOGLE_TOOLS = types.GenerateContentConfig(
    tools=[types.Tool(function_declarations=[types.FunctionDeclaration(name="get_weather", parameters_json_schema=WEATHER)])],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


@scenario
def google_generate():
    return whole(GOOGLE.models.generate_content(model="gemini-2.5-flash", contents="Say hello."))


@scenario
def google_tools():
    answer = GOOGLE.models.generate_content(
        model="gemini-2.5-flash", contents="Weather in Oslo?", config=GOOGLE_TOOLS
    )
    return whole(answer)


@scenario
def google_stream():
    return [
        whole(chunk)
        for chunk in GOOGLE.models.generate_content_stream(model="gemini-2.5-flash", contents="Say hello.")
    ]


@scenario
def google_stream_tools():
    chunks = GOOGLE.models.generate_content_stream(
        model="gemini-2.5-flash", contents="Weather in Oslo?", config=GOOGLE_TOOLS
    )
    return [whole(chunk) for chunk in chunks]


for run in SCENARIOS:
    print(json.dumps({"name": run.__name__, "dump": run()}, sort_keys=True), flush=True)
