"""LiteLLM as a library, over three dialects."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

from common import CHAT, QUESTION, TOOL, cancelled, differs, refusals, scenario, whole

differs("id", r"^(chatcmpl-)?[0-9a-f-]{36}$", "LiteLLM makes up ids where a vendor has none of its form")
differs("id", r"^call_[0-9a-f_-]{28,}$", "and those of tool calls, which Gemini has none of")
differs("created", r"^\d{10}$", "LiteLLM takes the time where a vendor tells none")

litellm.suppress_debug_info = True
litellm.telemetry = False


def completion(side, model, vendor, headers=None, **more):
    arguments = {"messages": CHAT, "extra_headers": headers, **more}
    return litellm.completion(
        model=model, api_base=side.url(vendor), api_key=side.key, num_retries=0, max_retries=0, **arguments
    )


def tell(error):
    return {name: getattr(error, name, None) for name in ("status_code", "message", "llm_provider", "code", "type")}


def scenarios(name, model, vendor):
    def plain(side):
        return whole(completion(side, model, vendor))

    def stream(side):
        return [whole(chunk) for chunk in completion(side, model, vendor, stream=True)]

    def tools(side):
        return whole(completion(side, model, vendor, messages=QUESTION, tools=[TOOL]))

    def stream_tools(side):
        return [whole(chunk) for chunk in completion(side, model, vendor, messages=QUESTION, tools=[TOOL], stream=True)]

    def start(side, headers):
        pieces = completion(side, model, vendor, headers, stream=True, max_tokens=1000)
        return map(whole, pieces), lambda: hang_up(pieces)

    for function in (plain, stream, tools, stream_tools):
        function.__name__ = f"{name}_{function.__name__}"
        scenario(function)
    refusals(
        name,
        lambda side, headers, suffix: completion(side, model + "-litellm" + suffix, vendor, headers),
        tell,
    )
    cancelled(name, start)


def hang_up(pieces):
    """Closes what a stream reads from: it has no way of its own, and would go on
    until it is collected."""
    inner = pieces.completion_stream
    getattr(inner, "streaming_response", inner).close()


scenarios("litellm_openai", "openai/gpt-4o-mini", "openai")
scenarios("litellm_anthropic", "anthropic/claude-sonnet-4-5", "anthropic")
scenarios("litellm_gemini", "gemini/gemini-2.5-flash", "google_beta")
