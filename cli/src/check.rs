//! `clawgate check-config`: every error of every setting at once, nothing
//! started and nothing written.

use crate::admin::say;
use crate::failure::Failure;
use crate::flags::{ControlFlags, Place, ProxyFlags, SharedFlags, refused};
use crate::settings_file;

/// Checks the configuration of both planes and reports every error at once
#[derive(clap::Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    control: ControlFlags,
    #[command(flatten)]
    proxy: ProxyFlags,
}

/// Runs `clawgate check-config`.
pub(crate) fn run(args: &CheckArgs, place: &Place) -> Result<(), Failure> {
    let problems = problems(&args.shared, &args.control, &args.proxy, place);
    if problems.is_empty() { say("the configuration is usable") } else { Err(refused(problems)) }
}

/// All problems, as `clawgate up` would meet them.
pub(crate) fn problems(shared: &SharedFlags, control: &ControlFlags, proxy: &ProxyFlags, place: &Place) -> Vec<String> {
    let mut problems = place.config.as_deref().map(settings_file::problems).unwrap_or_default();
    // A broken file was reported above, setting by setting.
    let place = if problems.is_empty() { place.clone() } else { Place { config: None, ..place.clone() } };
    problems.extend(control.resolve(shared, &place, true).err().unwrap_or_default());
    problems.extend(proxy.resolve(shared, &place, true).err().unwrap_or_default());
    problems
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn place(root: &Path, file: Option<&str>) -> Place {
        let config = file.map(|text| {
            let path = root.join("clawgate.toml");
            std::fs::write(&path, text).expect("written");
            path
        });
        Place { data_dir: root.join("data"), explicit: true, config }
    }

    fn of(file: Option<&str>, shared: &SharedFlags) -> Vec<String> {
        let root = tempfile::tempdir().expect("temporary directory");
        problems(shared, &ControlFlags::default(), &ProxyFlags::default(), &place(root.path(), file))
    }

    #[test]
    fn every_error_of_the_file_is_reported_at_once() {
        let file = "data_dir = 1\nspeed = 9\n[control]\nconsole_listen = 5\nno_such = 1\n[proxy]\nalso_not = 2\n";
        let problems = of(Some(file), &SharedFlags::default());
        for needle in ["data_dir", "speed", "control.console_listen", "control.no_such", "proxy.also_not"] {
            assert!(problems.iter().any(|p| p.contains(needle)), "{needle}: {problems:?}");
        }
        assert_eq!(problems.len(), 5, "{problems:?}");
    }

    #[test]
    fn errors_of_both_planes_come_together() {
        let shared =
            SharedFlags { public_url: Some("nonsense".into()), private_upstreams: Some("x y".into()), bot_pool: None };
        let problems = of(None, &shared);
        assert!(problems.iter().any(|p| p.starts_with("public_url")), "{problems:?}");
        assert!(problems.iter().any(|p| p.starts_with("private_upstreams")), "{problems:?}");
    }

    #[test]
    fn a_file_that_is_no_toml_does_not_show_its_lines() {
        let problems = of(Some("secret = abc def\n"), &SharedFlags::default());
        assert_eq!(problems.len(), 1);
        assert!(!problems.concat().contains("abc"), "{problems:?}");
    }

    #[test]
    fn defaults_are_usable() {
        assert_eq!(of(None, &SharedFlags::default()), Vec::<String>::new());
    }
}
