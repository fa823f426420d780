//! `clawgate doctor`: what is wrong here, why, and what repairs it.
//!
//! Invariant: looks and changes nothing (opening a database may make its empty
//! list of migrations, no more). Checks run in the order in which one
//! failure explains the next; a check that cannot be made because an earlier
//! one failed says so instead of failing too.

mod database;
mod local;
mod remote;

use serde_json::{Value, json};

use crate::admin::{Format, say};
use crate::failure::Failure;
use crate::files::DataDir;
use crate::flags::{ControlFlags, Place, ProxyFlags, SharedFlags};

/// Examines the installation in the data directory and says what to repair
#[derive(clap::Args, Debug)]
pub(crate) struct DoctorArgs {
    /// How to show the findings
    #[arg(long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    control: ControlFlags,
    #[command(flatten)]
    proxy: ProxyFlags,
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Fine(String),
    /// Works, but will not for long, or is not as safe as it should be.
    Doubtful { cause: String, repair: String },
    /// Does not work.
    Broken { cause: String, repair: String },
    /// Could not be examined.
    Skipped(String),
}

/// One check and its verdict.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
}

impl Verdict {
    fn broken(cause: impl Into<String>, repair: impl Into<String>) -> Self {
        Self::Broken { cause: cause.into(), repair: repair.into() }
    }

    fn doubtful(cause: impl Into<String>, repair: impl Into<String>) -> Self {
        Self::Doubtful { cause: cause.into(), repair: repair.into() }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Fine(_) => "ok",
            Self::Doubtful { .. } => "warn",
            Self::Broken { .. } => "FAIL",
            Self::Skipped(_) => "skip",
        }
    }
}

impl Finding {
    fn lines(&self) -> Vec<String> {
        let head = |text: &str| format!("{:4}  {:14}  {text}", self.verdict.word(), self.check);
        match &self.verdict {
            Verdict::Fine(text) | Verdict::Skipped(text) => vec![head(text)],
            Verdict::Doubtful { cause, repair } | Verdict::Broken { cause, repair } => {
                vec![head(cause), format!("{:22}repair: {repair}", "")]
            }
        }
    }

    fn json(&self) -> Value {
        let (cause, repair) = match &self.verdict {
            Verdict::Fine(text) | Verdict::Skipped(text) => (text, None),
            Verdict::Doubtful { cause, repair } | Verdict::Broken { cause, repair } => (cause, Some(repair)),
        };
        json!({
            "check": self.check,
            "verdict": self.verdict.word().to_lowercase(),
            "detail": cause,
            "repair": repair,
        })
    }
}

/// Runs `clawgate doctor`.
pub(crate) async fn run(args: &DoctorArgs, place: &Place) -> Result<(), Failure> {
    let data = DataDir::at(place.data_dir.clone());
    let mut findings = Vec::new();
    let mut note = |check, verdict| findings.push(Finding { check, verdict });
    note("data directory", local::data_directory(&data));
    note("secret files", local::secret_files(&data));
    note("disk", local::disk(&data));
    note("clock", local::clock());
    note("configuration", local::configuration(args, place));
    let control = args.control.resolve(&args.shared, place, true).ok();
    let proxy = args.proxy.resolve(&args.shared, place, true).ok();
    note("ports", local::ports(control.as_ref(), proxy.as_ref(), &data));
    let rest = database::all(control.as_ref(), &data).await.into_iter().chain(remote::all(&data).await);
    for (check, verdict) in rest {
        note(check, verdict);
    }
    show(args.output, &findings)?;
    let broken = findings.iter().filter(|f| matches!(f.verdict, Verdict::Broken { .. })).count();
    if broken == 0 { Ok(()) } else { Err(Failure::Failed(format!("{broken} of {} checks failed", findings.len()))) }
}

fn show(format: Format, findings: &[Finding]) -> Result<(), Failure> {
    match format {
        Format::Table => findings.iter().flat_map(Finding::lines).try_for_each(|line| say(&line)),
        Format::Json => {
            let all = Value::from_iter(findings.iter().map(Finding::json));
            say(&serde_json::to_string_pretty(&all).unwrap_or_else(|_| all.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_repair() {
        let finding = Finding { check: "disk", verdict: Verdict::broken("it is full", "free some space") };
        assert_eq!(
            finding.lines().join("\n"),
            "FAIL  disk            it is full\n                      repair: free some space"
        );
        assert_eq!(finding.json()["repair"], "free some space");
        let fine = Finding { check: "disk", verdict: Verdict::Fine("9 GiB free".into()) };
        assert!(fine.json()["repair"].is_null());
    }
}
