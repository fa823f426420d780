//! Reading a secret: from a file, from a pipe, or from a person without echo.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::failure::Failure;
use crate::files;

/// No vendor's secret is longer; more on a pipe is a mistake.
const LIMIT: u64 = 64 * 1024;

/// Where a secret comes from.
///
/// `file`: a path, or `-` for stdin. Without one: stdin when it is a pipe, else
/// a prompt on the terminal.
pub(crate) fn read(what: &str, file: Option<&PathBuf>) -> Result<String, Failure> {
    match file {
        Some(path) if path.as_os_str() != "-" => files::read_secret(path),
        None if io::stdin().is_terminal() => prompt(what),
        _ => {
            let mut text = String::new();
            io::stdin()
                .lock()
                .take(LIMIT)
                .read_to_string(&mut text)
                .map_err(|e| Failure::failed(&format!("reading {what} from stdin"), e))?;
            checked(what, &text)
        }
    }
}

fn checked(what: &str, text: &str) -> Result<String, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::Usage(format!("{what} is empty")));
    }
    Ok(text.to_owned())
}

/// Asks on the terminal with echo off; echo comes back on every way out.
fn prompt(what: &str) -> Result<String, Failure> {
    let doing = format!("asking for {what}");
    let terminal =
        File::options().read(true).write(true).open(Path::new("/dev/tty")).map_err(|e| Failure::failed(&doing, e))?;
    let before = tcgetattr(&terminal).map_err(|e| Failure::failed(&doing, e))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    let mut screen = &terminal;
    write!(screen, "{what}: ").map_err(|e| Failure::failed(&doing, e))?;
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).map_err(|e| Failure::failed(&doing, e))?;
    let mut line = String::new();
    let read = BufReader::new((&terminal).take(LIMIT)).read_line(&mut line);
    let restored = tcsetattr(&terminal, SetArg::TCSAFLUSH, &before);
    let newline = writeln!(screen);
    read.and(newline).map_err(|e| Failure::failed(&doing, e))?;
    restored.map_err(|e| Failure::failed(&doing, e))?;
    checked(what, &line)
}
