//! The faults that change a body instead of breaking the connection.

use bytes::Bytes;

use crate::answer::{Answer, Cut};
use crate::knobs::{Fault, FaultKind};

/// Length of the line the huge-line fault inserts.
const HUGE_LINE: usize = 1024 * 1024;

/// Applies gzip or the huge line; every other fault is played on the wire.
pub(crate) fn disguise(mut answer: Answer, fault: Option<Fault>) -> Answer {
    match fault {
        Some(Fault { kind: FaultKind::Gzip, .. }) => {
            answer.body = gzip(&answer.body).into();
            let tokens = answer.cuts.last().map_or(0, |cut| cut.tokens);
            answer.cuts = vec![Cut { end: answer.body.len(), tokens }];
            answer.with_header("content-encoding", "gzip")
        }
        Some(Fault { kind: FaultKind::HugeLine, at }) => {
            let at = usize::try_from(at.unwrap_or(0)).unwrap_or(usize::MAX);
            // Inserted only where an event ends, so that the body stays valid.
            let index = answer.cuts.partition_point(|cut| cut.end <= at).saturating_sub(1);
            let place = if at == 0 { 0 } else { answer.cuts.get(index).map_or(0, |cut| cut.end) };
            insert_line(&mut answer, place.min(at));
            answer
        }
        _ => answer,
    }
}

fn insert_line(answer: &mut Answer, place: usize) {
    let mut line = if answer.content_type.starts_with("text/event-stream") {
        let mut line = b": ".to_vec();
        line.resize(HUGE_LINE, b'x');
        line.extend_from_slice(b"\n\n");
        line
    } else {
        vec![b' '; HUGE_LINE]
    };
    let mut body = answer.body.to_vec();
    let rest = body.split_off(place);
    let added = line.len();
    body.append(&mut line);
    body.extend_from_slice(&rest);
    answer.body = Bytes::from(body);
    for cut in answer.cuts.iter_mut().filter(|cut| cut.end > place) {
        cut.end += added;
    }
}

/// A valid gzip stream of stored blocks: a client that unpacks it gets the
/// body, a tap that cannot sees only noise.
fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = body.chunks(0xffff).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    out.extend_from_slice(&u32::try_from(body.len() & 0xffff_ffff).unwrap_or(0).to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Bill;

    #[test]
    fn a_huge_line_goes_between_frames() {
        let mut answer = Answer::whole(200, "text/event-stream", b"data: 1\n\ndata: 2\n\n".to_vec(), Bill::default());
        answer.cuts = vec![Cut { end: 9, tokens: 1 }, Cut { end: 18, tokens: 2 }];
        let answer = disguise(answer, Some(Fault { kind: FaultKind::HugeLine, at: Some(12) }));
        assert!(answer.body.starts_with(b"data: 1\n\n: xxx") && answer.body.ends_with(b"x\n\ndata: 2\n\n"));
        assert_eq!(answer.cuts[0].end, 9);
        assert_eq!(answer.cuts[1].end, answer.body.len());
    }
}
