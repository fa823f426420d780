"""What the scenarios of every SDK share: the two sides, the conversation, how an
error is told and how a stream is given up.

Invariant: a scenario does the same on both sides; what it returns holds nothing
of the side but what the SDK made of the answer.
"""

import json
import re
import time
import urllib.request

SYSTEM = "Be brief."
HELLO = "Say hello to the world."
CHAT = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": HELLO}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Weather", "parameters": WEATHER}
TOOL = {"type": "function", "function": FUNCTION}
QUESTION = [{"role": "user", "content": "Weather in Oslo?"}]

# What a vendor says no with. The key stays good, or rests for one model alone:
# that of the scenario.
REFUSALS = (400, 404, 429)
# A stream of ten seconds, of which a scenario takes the first pieces.
LONG = {"x-mock-tokens": "1000", "x-mock-tps": "100"}
PIECES = 3
PATIENCE = 5.0


class Side:
    """The vendor itself, or the gateway in front of it."""

    def __init__(self, name, mock, roots, key):
        self.name, self.mock, self.roots, self.key = name, mock, roots, key

    def url(self, vendor):
        return self.roots[vendor]


class Cut:
    """A stream that was given up: what had come, and how long the vendor went on."""

    def __init__(self, pieces, seconds):
        self.pieces, self.seconds = pieces, seconds


SCENARIOS = []
DIFFERS = []


def scenario(function):
    """Registers `function(side)` under its name."""
    SCENARIOS.append((function.__name__, function))
    return function


def differs(key, pattern, reason):
    """Values of `key` that match `pattern` are not compared: `reason`."""
    assert reason
    DIFFERS.append((key, re.compile(pattern)))


def comparable(dump):
    """The dump without what must differ."""
    if isinstance(dump, dict):
        return {key: "differs" if different(key, value) else comparable(value) for key, value in dump.items()}
    return [comparable(value) for value in dump] if isinstance(dump, list) else dump


def different(key, value):
    return any(key == name and pattern.search(str(value)) for name, pattern in DIFFERS)


def refusals(name, call, tell):
    """One scenario for each status: `call(side, headers, suffix)` must raise, and
    `tell(error)` names what the error offers. The suffix sets models apart."""
    for status in REFUSALS:

        def refused(side, status=status):
            headers = {"x-mock-status": str(status)}
            try:
                call(side, headers, f"-refused-{status}")
            except Exception as error:
                kind = type(error)
                return {"class": f"{kind.__module__}.{kind.__qualname__}", **tell(error)}
            return "no error"

        SCENARIOS.append((f"{name}_error_{status}", refused))


def cancelled(name, start):
    """`start(side, headers)` gives an iterator of dumps and what gives it up."""

    def cut(side):
        mine = f"{side.name}-python_{name}_cancel"
        pieces, hang_up = start(side, {**LONG, "x-request-id": mine})
        taken = [next(pieces) for _ in range(PIECES)]
        assert is_open(side, mine), "the vendor had sent everything already"
        hang_up()
        return Cut(taken, until_gone(side, mine))

    SCENARIOS.append((f"{name}_cancel", cut))


def is_open(side, request):
    answer = json.load(urllib.request.urlopen(side.mock + "/__mock/inflight", timeout=10))
    return any(one["request_id"] == request for one in answer["requests"])


def until_gone(side, request):
    """Seconds until the vendor has seen the hang-up."""
    began = time.monotonic()
    while is_open(side, request):
        if time.monotonic() - began > PATIENCE:
            return None
        time.sleep(0.005)
    return time.monotonic() - began


def whole(model):
    """A response object without what is about the connection."""
    return model.model_dump(mode="json", exclude={"sdk_http_response"})
