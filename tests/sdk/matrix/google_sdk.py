"""Google's Gen AI SDK."""

from functools import cache

from google import genai
from google.genai import types

from common import HELLO, SYSTEM, WEATHER, cancelled, refusals, scenario, whole

MODEL = "gemini-2.5-flash"


@cache
def client(side):
    return genai.Client(api_key=side.key, http_options=types.HttpOptions(base_url=side.url("google")))


def models(side):
    return client(side).models


def config(headers=None, **more):
    options = types.HttpOptions(headers=headers)
    return types.GenerateContentConfig(system_instruction=SYSTEM, http_options=options, **more)


TOOLS = config(
    tools=[types.Tool(function_declarations=[types.FunctionDeclaration(name="get_weather", parameters_json_schema=WEATHER)])],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


@scenario
def google_generate(side):
    return whole(models(side).generate_content(model=MODEL, contents=HELLO, config=config()))


@scenario
def google_several_candidates(side):
    return whole(models(side).generate_content(model=MODEL, contents=HELLO, config=config(candidate_count=2)))


@scenario
def google_tools(side):
    return whole(models(side).generate_content(model=MODEL, contents="Weather in Oslo?", config=TOOLS))


@scenario
def google_stream(side):
    return [whole(chunk) for chunk in models(side).generate_content_stream(model=MODEL, contents=HELLO)]


@scenario
def google_stream_tools(side):
    chunks = models(side).generate_content_stream(model=MODEL, contents="Weather in Oslo?", config=TOOLS)
    return [whole(chunk) for chunk in chunks]


@scenario
def google_count_tokens(side):
    return whole(models(side).count_tokens(model=MODEL, contents=HELLO))


@scenario
def google_embed(side):
    return whole(models(side).embed_content(model="gemini-embedding-001", contents=HELLO))


@scenario
def google_models(side):
    return [whole(model) for model in models(side).list()]


def tell(error):
    return {name: getattr(error, name, None) for name in ("code", "status", "message", "details")}


refusals(
    "google",
    lambda side, headers, suffix: models(side).generate_content(
        model=MODEL + suffix, contents=HELLO, config=config(headers)
    ),
    tell,
)
refusals(
    "google_stream",
    lambda side, headers, suffix: list(
        models(side).generate_content_stream(
            model=MODEL + "-stream" + suffix, contents=HELLO, config=config(headers)
        )
    ),
    tell,
)


def start(side, headers):
    stream = models(side).generate_content_stream(model=MODEL, contents=HELLO, config=config(headers))
    return map(whole, stream), stream.close


cancelled("google", start)
