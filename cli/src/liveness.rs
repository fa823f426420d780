//! A child must not outlive its supervisor, however that one dies.
//!
//! The supervisor holds the write end of a pipe whose read end is its
//! children's standard input. Nothing is ever written; when the last holder of
//! the write end is gone, even by `kill -9`, the read ends, and the child
//! drains as if told to by SIGTERM. A successor that a child starts inherits
//! the same standard input and with it the same bond, which a parent-death
//! signal would not give it.

use std::io::Read as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::failure::Failure;

/// Watches standard input from a thread of its own and sends this process
/// SIGTERM when it ends. Call it after the handler of SIGTERM is installed, or
/// early: without a handler the process just ends, which is as good then.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn follow_supervisor() -> Result<(), Failure> {
    std::thread::Builder::new()
        .name("liveness".to_owned())
        .spawn(|| {
            let mut byte = [0_u8; 1];
            let mut stdin = std::io::stdin().lock();
            // Anything but "interrupted" ends the bond; a byte is ignored.
            loop {
                match stdin.read(&mut byte) {
                    Ok(1..) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => break,
                }
            }
            // Cannot fail: a process may always signal itself.
            let _ = kill(Pid::this(), Signal::SIGTERM);
        })
        .map(drop)
        .map_err(|e| Failure::failed("watching the supervisor", e))
}
