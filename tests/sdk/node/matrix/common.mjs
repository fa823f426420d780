// What the scenarios of every Node SDK share, as ../../matrix/common.py has it for
// Python: the two sides, the conversation, how an error is told and how a stream
// is given up.

export const SYSTEM = "Be brief.";
export const HELLO = "Say hello to the world.";
export const ASK = "Weather in Oslo?";
export const CHAT = [
  { role: "system", content: SYSTEM },
  { role: "user", content: HELLO },
];
export const QUESTION = [{ role: "user", content: ASK }];
export const WEATHER = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

// What a vendor says no with. The key stays good, or rests for one model alone:
// that of the scenario.
const REFUSALS = [400, 404, 429];
// A stream of ten seconds, of which a scenario takes the first pieces.
const LONG = { "x-mock-tokens": "1000", "x-mock-tps": "100" };
const PIECES = 3;
const PATIENCE = 5000;

/** A stream that was given up: what had come, and how many seconds the vendor went on. */
export class Cut {
  constructor(pieces, seconds) {
    Object.assign(this, { pieces, seconds });
  }
}

export const SCENARIOS = [];
const DIFFERS = [];

/** Registers `run(side)`. */
export const scenario = (name, run) => SCENARIOS.push([name, run]);

/** Values of `key` that match `pattern` are not compared, for `reason`. */
export function differs(key, pattern, reason) {
  if (!reason) throw new Error("a difference needs a reason");
  DIFFERS.push([key, pattern]);
}

// The gateway asks for usage where a client did not. It takes out the event that
// tells it; the others of the same stream then say that they tell none.
differs("usage", /^null$/, "a member that is null is the same as none");

const different = (key, value) => DIFFERS.some(([name, pattern]) => name === key && pattern.test(String(value)));

/** The dump without what must differ. */
export function comparable(dump) {
  if (Array.isArray(dump)) return dump.map(comparable);
  if (dump === null || typeof dump !== "object") return dump;
  const pairs = Object.entries(dump).sort(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(
    pairs.flatMap(([key, value]) => (different(key, value) ? [] : [[key, comparable(value)]])),
  );
}

/** One scenario for each status: `call(side, headers, suffix)` must throw, and
 * `tell(error)` names what the error offers. The suffix sets models apart. */
export function refusals(name, call, tell) {
  for (const status of REFUSALS) {
    scenario(`${name}_error_${status}`, async (side) => {
      try {
        await call(side, { "x-mock-status": String(status) }, `-refused-${status}`);
      } catch (error) {
        return { class: error.constructor.name, ...tell(error) };
      }
      return "no error";
    });
  }
}

/** `start(side, headers, signal)` gives an async iterable; the signal gives it up. */
export function cancelled(name, start) {
  scenario(`${name}_cancel`, async (side) => {
    const mine = `${side.name}-node_${name}_cancel`;
    const controller = new AbortController();
    const pieces = [];
    const stream = await start(side, { ...LONG, "x-request-id": mine }, controller.signal);
    try {
      for await (const piece of stream) {
        pieces.push(piece);
        if (pieces.length === PIECES) {
          if (!(await isOpen(side, mine))) throw new Error("the vendor had sent everything already");
          controller.abort();
          break;
        }
      }
    } catch (error) {
      if (!controller.signal.aborted) throw error;
    }
    return new Cut(pieces, await untilGone(side, mine));
  });
}

async function isOpen(side, request) {
  const answer = await (await fetch(side.mock + "/__mock/inflight")).json();
  return answer.requests.some((one) => one.request_id === request);
}

/** Seconds until the vendor has seen the hang-up. */
async function untilGone(side, request) {
  const began = performance.now();
  while (await isOpen(side, request)) {
    if (performance.now() - began > PATIENCE) return null;
  }
  return (performance.now() - began) / 1000;
}

/** Everything an async iterable gives. */
export async function all(stream) {
  const pieces = [];
  for await (const piece of await stream) pieces.push(piece);
  return pieces;
}
