//! What no tracked file may say: open ends, places of one machine, names of
//! package hosts. The needles are put together here so that this file does not
//! contain them.

use super::{Source, Violation};

/// Stubs and ignored tests in Rust files.
#[must_use]
pub fn stubs(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        let tokens = file.tokens();
        for pattern in [&["todo", "!", "("][..], &["unimplemented", "!", "("], &["#", "[", "ignore"]] {
            for line in tokens.find(pattern) {
                violations.push(Violation(format!("{}:{line}: {}", file.path, pattern.concat())));
            }
        }
        let open_ends = [["FIX", "ME"].concat(), ["XX", "X"].concat()];
        for (number, line) in file.text.lines().enumerate() {
            if line.contains("//") && open_ends.iter().any(|needle| line.contains(needle)) {
                violations.push(Violation(format!("{}:{}: an open end", file.path, number + 1)));
            }
        }
    }
    violations
}

fn needles() -> Vec<String> {
    let parts: [[&str; 2]; 13] = [
        ["cra", "tes.io"],
        ["registry.n", "pmjs"],
        ["py", "pi.org"],
        ["python", "hosted"],
        ["deb.deb", "ian"],
        ["/wo", "rk/main"],
        ["/wo", "rk/shared"],
        ["/wo", "rk/steering"],
        ["/wo", "rk/."],
        ["/ro", "ot/"],
        ["/fa", "rm/"],
        ["bash_", "jobs"],
        ["/tmp/", "target-"],
    ];
    parts.iter().map(|p| p.concat()).collect()
}

/// Machine paths, package hosts and numbers of tickets. Lock files name
/// their registry and are left out.
#[must_use]
pub fn places(files: &[Source]) -> Vec<Violation> {
    let needles = needles();
    let ticket = ["issue", " #"].concat();
    let mut violations = Vec::new();
    for file in files.iter().filter(|f| !f.path.ends_with("Cargo.lock") && !f.path.ends_with("package-lock.json")) {
        for (number, line) in file.text.lines().enumerate() {
            let hit = needles.iter().find(|needle| line.contains(needle.as_str()));
            let ticket_hit = line.to_lowercase().contains(&ticket) || numbered_ticket(line);
            if let Some(needle) = hit {
                violations.push(Violation(format!("{}:{}: {needle}", file.path, number + 1)));
            } else if ticket_hit {
                violations.push(Violation(format!("{}:{}: names a ticket", file.path, number + 1)));
            }
        }
    }
    violations
}

fn numbered_ticket(line: &str) -> bool {
    let lower = line.to_lowercase();
    lower.match_indices("issue ").any(|(at, word)| {
        let whole_word = !lower[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        whole_word && lower[at + word.len()..].starts_with(|c: char| c.is_ascii_digit())
    })
}
