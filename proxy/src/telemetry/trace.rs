//! Spans of exchanges: where one stands in its caller's trace (W3C trace
//! context), and the queue to whoever sends them on.
//!
//! A span is made at an exchange's end from what is known by then. When the
//! queue is full it is dropped and counted: traces never hold an exchange up.

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

/// Spans that wait to be sent.
const QUEUE: usize = 4096;
/// `00-` trace `-` span `-` flags
const LENGTH: usize = 55;

/// Where an exchange stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Of the whole trace.
    pub trace_id: [u8; 16],
    /// Of this exchange.
    pub span_id: [u8; 8],
    /// Of the caller.
    pub parent: Option<[u8; 8]>,
    /// Its span is wanted.
    pub sampled: bool,
}

/// What a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that was served.
    Server,
    /// A request that was made.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

/// A finished span. What a client chose comes masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it stands.
    pub trace: Trace,
    /// For people.
    pub name: String,
    /// See [`Kind`].
    pub kind: Kind,
    /// Unix microseconds.
    pub began_micros: i64,
    /// Unix microseconds.
    pub ended_micros: i64,
    /// In one word, when it failed.
    pub error: Option<String>,
    /// By name.
    pub attributes: Vec<(&'static str, Value)>,
}

/// The way of spans out of exchanges.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    queue: Option<mpsc::Sender<Span>>,
    /// Of `u64::MAX`: how many traces that nobody decided about are sampled.
    share: u64,
    dropped: Counter,
}

impl Traces {
    /// Spans for whoever receives them; `share` (0 to 1) of the exchanges whose
    /// callers say nothing about sampling. What is dropped is counted.
    #[must_use]
    pub fn to_exporter(share: f64, dropped: Counter) -> (Self, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(QUEUE);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let share = (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        (Self { queue: Some(queue), share, dropped }, spans)
    }

    /// Where an exchange with these `traceparent` headers stands. `None`: in no
    /// trace, and none is begun for it.
    #[must_use]
    pub fn begin<'h>(&self, mut headers: impl Iterator<Item = &'h [u8]>) -> Option<Trace> {
        let header = headers.next().filter(|_| headers.next().is_none());
        if let Some((trace_id, parent, sampled)) = header.and_then(parse) {
            let sampled = sampled && self.queue.is_some();
            let span_id = if sampled { random() } else { [0; 8] };
            return Some(Trace { trace_id, span_id, parent: Some(parent), sampled });
        }
        self.queue.as_ref()?;
        let trace_id: [u8; 16] = random();
        let chance = trace_id.last_chunk::<8>().map_or(u64::MAX, |last| u64::from_be_bytes(*last));
        (chance <= self.share && self.share > 0).then(|| Trace {
            trace_id,
            span_id: random(),
            parent: None,
            sampled: true,
        })
    }

    /// Hands a span on.
    pub fn end(&self, span: Span) {
        if let Some(queue) = &self.queue
            && queue.try_send(span).is_err()
        {
            self.dropped.inc();
        }
    }
}

impl Trace {
    /// A further span below this one.
    #[must_use]
    pub fn child(self) -> Self {
        let span_id = if self.sampled { random() } else { [0; 8] };
        Self { span_id, parent: Some(self.span_id).filter(|id| *id != [0; 8]).or(self.parent), ..self }
    }

    /// The trace's id as headers and logs write it.
    #[must_use]
    pub fn hex_id(&self) -> String {
        self.trace_id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Ids are never zero.
fn random<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    if getrandom::fill(&mut id).is_err() || id == [0; N] {
        id = [1; N];
    }
    id
}

/// Reads a `traceparent`: trace, caller's span, whether it is sampled.
fn parse(header: &[u8]) -> Option<([u8; 16], [u8; 8], bool)> {
    let known = header.get(..LENGTH)?;
    let more = header.get(LENGTH..)?;
    let (version, flags) = (hex::<1>(known.get(..2)?)?, hex::<1>(known.get(53..55)?)?);
    let dashes = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
    let longer = version != [0] && more.first() == Some(&b'-');
    if version == [0xff] || !dashes || !(more.is_empty() || longer) {
        return None;
    }
    let (trace, span) = (hex::<16>(known.get(3..35)?)?, hex::<8>(known.get(36..52)?)?);
    (trace != [0; 16] && span != [0; 8]).then_some((trace, span, flags.first().is_some_and(|flags| flags & 1 == 1)))
}

/// Lower-case hex, as the format wants it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_taken_whole_or_not_at_all() {
        let found = parse(GOOD.as_bytes()).expect("valid");
        assert_eq!((found.0[0], found.0[15], found.1[0], found.2), (0x0a, 0x9c, 0xb7, true));
        assert!(!parse(GOOD.replace("-01", "-00").as_bytes()).expect("valid").2);
        assert!(parse(GOOD.replace("-01", "-03").as_bytes()).expect("valid").2);
        assert!(parse(format!("cc{}-more", &GOOD[2..]).as_bytes()).is_some());
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            &format!("cc{}more", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_caller_decides_and_else_the_setting() {
        let unsampled = GOOD.replace("-01", "-00");
        let off = Traces::default();
        assert!(off.begin(std::iter::empty()).is_none());
        let trace = off.begin([GOOD.as_bytes()].into_iter()).expect("in a trace");
        assert!(!trace.sampled && trace.hex_id() == "0af7651916cd43dd8448eb211c80319c");
        for (share, all) in [(0.0, false), (1.0, true)] {
            let (on, _spans) = Traces::to_exporter(share, Counter::default());
            assert_eq!(on.begin(std::iter::empty()).is_some(), all);
            assert!(on.begin([GOOD.as_bytes()].into_iter()).expect("in a trace").sampled);
            assert!(!on.begin([unsampled.as_bytes()].into_iter()).expect("in a trace").sampled);
            // Two are none.
            assert_eq!(on.begin([GOOD.as_bytes(); 2].into_iter()).is_some(), all);
        }
        let (half, _spans) = Traces::to_exporter(0.5, Counter::default());
        let sampled = (0..1000).filter(|_| half.begin(std::iter::empty()).is_some()).count();
        assert!((350..650).contains(&sampled), "{sampled}");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let dropped = Counter::default();
        let (traces, _spans) = Traces::to_exporter(1.0, dropped.clone());
        let trace = traces.begin(std::iter::empty()).expect("sampled");
        let span = Span {
            trace: trace.child(),
            name: "x".to_owned(),
            kind: Kind::Client,
            began_micros: 0,
            ended_micros: 0,
            error: None,
            attributes: Vec::new(),
        };
        assert_eq!((span.trace.parent, span.trace.trace_id), (Some(trace.span_id), trace.trace_id));
        (0..QUEUE + 3).for_each(|_| traces.end(span.clone()));
        assert_eq!(dropped.get(), 3);
    }
}
