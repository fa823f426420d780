"""Runs every scenario of some SDKs on both sides, and prints one JSON object for
each: its side and name, what the SDK made of the answer, and for one that gave
up in mid-stream how many seconds the vendor went on.

Told by one JSON object in the arguments: the vendor's address, the modules of the
SDKs, and by side the base URL of each SDK. Keys come from the environment
(MATRIX_KEYS, by side).
"""

import importlib
import json
import os
import sys
import warnings

from common import SCENARIOS, Cut, Side, comparable

TASK = json.loads(sys.argv[1])
KEYS = json.loads(os.environ["MATRIX_KEYS"])


def run(side, name, function):
    line = {"side": side.name, "name": "python_" + name, "seconds": None}
    try:
        result = function(side)
        if isinstance(result, Cut):
            line["seconds"], result = result.seconds, result.pieces
        line["dump"] = comparable(json.loads(json.dumps(result)))
    except Exception as error:
        line["failed"] = f"{type(error).__qualname__}: {error}"
    print(json.dumps(line, sort_keys=True), flush=True)


warnings.filterwarnings("ignore")
for sdk in TASK["sdks"]:
    importlib.import_module(sdk + "_sdk")
for name, roots in TASK["sides"].items():
    side = Side(name, TASK["mock"], roots, KEYS[name])
    for scenario, function in SCENARIOS:
        run(side, scenario, function)
