"""What the official Python SDKs, and LangChain over one of them, make of a
refusal: whether they give up at once or wait and are served.

Told by one JSON object in the arguments: the gateway of each case, the mock
vendor, and the SHA-256 of the provider key. Bot tokens come from the environment
(RETRIES_TOKENS, a JSON object by case and SDK). Prints one JSON object per case
and SDK: whether it was served, the error's code, and how many seconds it took.
"""

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

import anthropic
import openai
from google import genai
from google.genai import types
from langchain_openai import ChatOpenAI

TASK = json.loads(sys.argv[1])
HELLO = [{"role": "user", "content": "Say hello."}]


TOKENS = json.loads(os.environ["RETRIES_TOKENS"])
PRINTING = threading.Lock()


def post(url, body, **headers):
    headers = {"content-type": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


def make_openai(base, key):
    client = openai.OpenAI(base_url=base + "/v1/openai", api_key=key)
    return lambda: client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=20)


def make_anthropic(base, key):
    client = anthropic.Anthropic(base_url=base + "/v1/anthropic", api_key=key)
    return lambda: client.messages.create(model="claude-sonnet-4-5", max_tokens=20, messages=HELLO)


def make_google(base, key, eager=True):
    # It never retries unless it is told to.
    retry = types.HttpRetryOptions(attempts=4) if eager else None
    client = genai.Client(
        api_key=key, http_options=types.HttpOptions(base_url=base + "/v1/google", retry_options=retry)
    )
    return lambda: client.models.generate_content(model="gemini-2.5-flash", contents="Say hello.")


def make_langchain(base, key):
    model = ChatOpenAI(base_url=base + "/v1/openai", api_key=key, model="gpt-4o-mini", max_tokens=20)
    return lambda: model.invoke("Say hello.")


SDKS = {
    "openai": make_openai,
    "anthropic": make_anthropic,
    "google": make_google,
    "langchain": make_langchain,
}


def body_of(error):
    for attempt in (lambda: error.response.json(), lambda: error.details, lambda: error.body):
        try:
            found = attempt()
            if isinstance(found, dict):
                return found
        except Exception:
            pass
    return {}


def code_of(error):
    found = body_of(error).get("error", {})
    details = found.get("details") or [{}]
    return details[0].get("reason") or found.get("code") or found.get("type")


def plain(case, name, **headers):
    """One more request of a bot, without any SDK."""
    body = {"model": "gpt-4o-mini", "messages": HELLO}
    url = TASK["gateways"][case] + "/v1/openai/chat/completions"
    return post(url, body, authorization="Bearer " + TOKENS[case][name], **headers)


def until_refused(case, name):
    for _ in range(100):
        if plain(case, name) == 429:
            return
    raise SystemExit("never refused")


def occupied(case):
    """Takes the node's only place for a second and a half."""
    mine = "holder-" + str(os.getpid())
    headers = {"x-mock-delay": "1500", "x-request-id": mine}
    thread = threading.Thread(target=lambda: plain(case, "holder", **headers))
    thread.start()
    while not any(request["request_id"] == mine for request in inflight()):
        time.sleep(0.005)
    return thread


def inflight():
    return json.load(urllib.request.urlopen(TASK["mock"] + "/__mock/inflight"))["requests"]


def fails_once(status):
    rule = {"credential": TASK["credential"], "knobs": {"status": status}, "times": 1}
    post(TASK["mock"] + "/__mock/rules", rule)


def measure(case, name, call):
    held = None
    if case == "rate":
        until_refused(case, name)
    elif case == "shed":
        held = occupied(case)
    elif case == "overloaded":
        fails_once(503 if name == "google" else 529)
    began = time.monotonic()
    served, code = True, None
    try:
        call()
    except Exception as error:
        served, code = False, code_of(error) or repr(error)
    seconds = time.monotonic() - began
    if held:
        held.join()
    line = json.dumps({"case": case, "name": name, "served": served, "code": code, "seconds": seconds})
    with PRINTING:
        print(line, flush=True)


def run(case, name):
    options = {"eager": False} if name == "google" and case in ("exhausted", "never") else {}
    measure(case, name, SDKS[name](TASK["gateways"][case], TOKENS[case][name], **options))


for make in SDKS.values():
    # An SDK's first call loads half of it.
    make(TASK["gateways"]["rate"], TOKENS["rate"]["holder"])()
for case in TASK["gateways"]:
    threads = [threading.Thread(target=run, args=(case, name)) for name in SDKS]
    for thread in threads:
        thread.start()
        # The one place, and the vendor's one failure, are for one at a time; and
        # one that gives up at once is not to be kept waiting by the others.
        if case != "rate":
            thread.join()
    for thread in threads:
        thread.join()
