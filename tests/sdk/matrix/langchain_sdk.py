"""LangChain over OpenAI and Anthropic."""

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from common import HELLO, SYSTEM, TOOL, cancelled, differs, refusals, scenario

differs("id", r"^lc_run-", "LangChain makes up the id of a run")

MESSAGES = [("system", SYSTEM), ("user", HELLO)]


def over_openai(side, headers=None, suffix=""):
    return ChatOpenAI(
        base_url=side.url("openai"),
        api_key=side.key,
        model="gpt-4o-mini" + suffix,
        max_retries=0,
        default_headers=headers,
    )


def over_anthropic(side, headers=None, suffix=""):
    return ChatAnthropic(
        base_url=side.url("anthropic"),
        api_key=side.key,
        model="claude-sonnet-4-5" + suffix,
        max_tokens=1000,
        max_retries=0,
        default_headers=headers,
    )


def whole(message):
    return message.model_dump(mode="json")


def tell(error):
    return {name: getattr(error, name, None) for name in ("status_code", "body", "code", "message")}


def scenarios(name, make):
    def plain(side):
        return whole(make(side).invoke(MESSAGES))

    def stream(side):
        return [whole(chunk) for chunk in make(side).stream(MESSAGES)]

    def tools(side):
        return whole(make(side).bind_tools([TOOL]).invoke("Weather in Oslo?"))

    def stream_tools(side):
        return [whole(chunk) for chunk in make(side).bind_tools([TOOL]).stream("Weather in Oslo?")]

    def start(side, headers):
        pieces = make(side, headers).stream(MESSAGES)
        return map(whole, pieces), pieces.close

    for function in (plain, stream, tools, stream_tools):
        function.__name__ = f"{name}_{function.__name__}"
        scenario(function)
    refusals(name, lambda side, headers, suffix: make(side, headers, "-langchain" + suffix).invoke(MESSAGES), tell)
    cancelled(name, start)


scenarios("langchain_openai", over_openai)
scenarios("langchain_anthropic", over_anthropic)
