//! A vendor that keeps every byte it is sent and answers the same to all.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

/// One that runs until the test ends.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<Vec<u8>>>,
}

/// A small completion.
const ANSWER: &str = r#"{"id":"x","object":"chat.completion","choices":[]}"#;

impl Sink {
    /// Starts one.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let sink = Self { address, seen: Arc::default(), answer: Arc::default() };
        sink.answer_with(200, &[]);
        let serving = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        sink
    }

    /// Sets the status and further header lines of all answers.
    ///
    /// # Panics
    /// Another thread has.
    pub fn answer_with(&self, status: u16, headers: &[(&str, &str)]) {
        let mut text = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{ANSWER}", ANSWER.len()));
        *self.answer.lock().expect("lock") = text.into_bytes();
    }

    /// Takes the requests that came since the last time, head and body each.
    ///
    /// # Panics
    /// Another thread has.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().expect("lock"))
    }

    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
        let mut bytes = Vec::new();
        loop {
            let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
                if !fill(&mut stream, &mut bytes) {
                    return;
                }
                continue;
            };
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let whole = head + length.and_then(|n| n.trim().parse::<usize>().ok()).unwrap_or(0);
            while bytes.len() < whole {
                if !fill(&mut stream, &mut bytes) {
                    return;
                }
            }
            let request = String::from_utf8_lossy(&bytes[..whole]).into_owned();
            bytes.drain(..whole);
            self.seen.lock().expect("lock").push(request);
            let answer = self.answer.lock().expect("lock").clone();
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

/// The send buffer of each of its connections.
const SENDS: usize = 64 << 10;

/// A vendor whose answers go on for ever, as fast as they are taken.
#[derive(Clone, Debug)]
pub struct Endless {
    /// Where it listens.
    pub address: SocketAddr,
    /// Bytes taken of each answer, and whether it goes on.
    answers: Arc<Mutex<Vec<(u64, bool)>>>,
}

impl Endless {
    /// Starts one.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endless = Self { address: listener.local_addr().expect("an address"), answers: Arc::default() };
        let serving = endless.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        endless
    }

    /// The most bytes taken of one answer, and how many answers go on.
    ///
    /// # Panics
    /// A thread of it has.
    #[must_use]
    pub fn taken(&self) -> (u64, usize) {
        let answers = self.answers.lock().expect("lock");
        (answers.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0), answers.iter().filter(|(_, on)| *on).count())
    }

    fn serve(&self, mut stream: TcpStream) {
        // What waits in its own kernel was taken by nobody.
        let _ = setsockopt(&stream, sockopt::SndBuf, &SENDS);
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
            if !fill(&mut stream, &mut bytes) {
                return;
            }
        }
        let place = {
            let mut answers = self.answers.lock().expect("lock");
            answers.push((0, true));
            answers.len() - 1
        };
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(4000));
        let mut written = stream.write_all(head).is_ok();
        while written {
            written = stream.write_all(event.as_bytes()).is_ok();
            let mut answers = self.answers.lock().expect("lock");
            answers[place].0 += event.len() as u64;
            answers[place].1 = written;
        }
    }
}

fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut piece = [0_u8; 16 * 1024];
    match stream.read(&mut piece) {
        Ok(count) if count > 0 => {
            bytes.extend_from_slice(&piece[..count]);
            true
        }
        _ => false,
    }
}
