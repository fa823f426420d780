//! Which control plane a verb talks to, and with which credential.
//!
//! Order: `--url` or `CLAWGATE_URL`; a data directory that was named; the saved
//! profile; the default data directory. The credential: `--token-file`,
//! `CLAWGATE_TOKEN`, else what belongs to the place that was found.

use std::path::PathBuf;

use super::output::Format;
use super::profile::Profile;
use crate::failure::Failure;
use crate::files::{self, DataDir};

/// Flags of every admin verb.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TargetArgs {
    /// Control plane to talk to
    #[arg(long, env = "CLAWGATE_URL", global = true, value_name = "URL", help_heading = "Target")]
    pub(crate) url: Option<String>,
    /// File with the API token; `CLAWGATE_TOKEN` is read when absent
    #[arg(long, global = true, value_name = "FILE", help_heading = "Target")]
    pub(crate) token_file: Option<PathBuf>,
    /// Tenant to act in
    #[arg(long, env = "CLAWGATE_TENANT", global = true, value_name = "SLUG", help_heading = "Target")]
    pub(crate) tenant: Option<String>,
    /// How to show the answer
    #[arg(long, global = true, value_enum, default_value = "table", help_heading = "Target")]
    pub(crate) output: Format,
}

/// A control plane and the right to talk to it.
pub(crate) struct Target {
    /// `http://…` without a trailing slash.
    pub(crate) url: String,
    /// Bearer token.
    pub(crate) token: String,
    /// Tenant slug, when one was chosen.
    pub(crate) tenant: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("url", &self.url).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// In a data directory: the tenant that verbs act in unless told otherwise.
const LOCAL_TENANT: &str = "tenant";

/// Remembers the tenant of a data directory, as `up --demo` does once.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn remember_local_tenant(data: &DataDir, slug: &str) -> Result<(), Failure> {
    let path = data.file(LOCAL_TENANT);
    if path.exists() {
        return Ok(());
    }
    files::write_private(&path, format!("{slug}\n").as_bytes())
        .map_err(|e| Failure::failed(&format!("writing {}", path.display()), e))
}

impl Target {
    /// See the module's documentation for the order.
    pub(crate) fn find(args: &TargetArgs, data: &DataDir, explicit_data: bool) -> Result<Self, Failure> {
        let given = given_token(args)?;
        let mut target = if let Some(url) = &args.url {
            Self::at_url(url, given.as_deref())?
        } else if explicit_data {
            Self::local(data, given.as_deref())?
        } else if let Some(profile) = Profile::load()? {
            let token = given.unwrap_or(profile.token);
            Self { url: profile.url, token, tenant: profile.tenant }
        } else {
            Self::local(data, given.as_deref())?
        };
        if args.tenant.is_some() {
            target.tenant.clone_from(&args.tenant);
        }
        Ok(target)
    }

    fn at_url(url: &str, given: Option<&str>) -> Result<Self, Failure> {
        let url = checked_url(url)?;
        if let Some(token) = given {
            return Ok(Self { url, token: token.to_owned(), tenant: None });
        }
        match Profile::load()? {
            Some(profile) if profile.url == url => Ok(Self { url, token: profile.token, tenant: profile.tenant }),
            _ => Err(Failure::NotAllowed(format!(
                "no credential for {url}: give --token-file, set CLAWGATE_TOKEN, or run `clawgate login {url}`"
            ))),
        }
    }

    /// The control plane that runs on this machine from this data directory.
    pub(crate) fn local(data: &DataDir, given: Option<&str>) -> Result<Self, Failure> {
        let address = files::read_address(&data.run_file("control.json"), "console").ok_or_else(|| {
            Failure::Failed(format!(
                "no control plane runs from {}: start `clawgate up`, or name another with --url or --data-dir",
                data.path().display()
            ))
        })?;
        let address = files::dialable(address);
        let token = match given {
            Some(token) => token.to_owned(),
            None => files::read_secret(&data.file("admin.token"))
                .map_err(|e| Failure::NotAllowed(format!("no admin token: {e}; give --token-file")))?,
        };
        let tenant = files::read_secret(&data.file(LOCAL_TENANT)).ok();
        Ok(Self { url: format!("http://{address}"), token, tenant })
    }
}

fn given_token(args: &TargetArgs) -> Result<Option<String>, Failure> {
    if let Some(path) = &args.token_file {
        return files::read_secret(path).map(Some);
    }
    let variable = std::env::var_os("CLAWGATE_TOKEN").and_then(|v| v.into_string().ok());
    Ok(variable.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()))
}

/// A control plane's URL: an origin, perhaps with a path before `/api`.
pub(crate) fn checked_url(text: &str) -> Result<String, Failure> {
    clawgate_shared::origin::BaseUrl::parse(text)
        .map(|url| url.to_string())
        .map_err(|e| Failure::Usage(format!("the control plane's URL {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: Option<&str>, token_file: Option<PathBuf>) -> TargetArgs {
        TargetArgs { url: url.map(str::to_owned), token_file, tenant: None, output: Format::Table }
    }

    #[test]
    fn a_named_data_directory_leads_to_its_control_plane() {
        let root = tempfile::tempdir().expect("temporary directory");
        let data = DataDir::at(root.path().to_path_buf());
        data.prepare().expect("prepared");
        let missing = Target::find(&args(None, None), &data, true).expect_err("nothing runs");
        assert_eq!(missing.code(), 1);
        files::write_private(&data.run_file("control.json"), br#"{"console":"127.0.0.1:5"}"#).expect("written");
        let missing = Target::find(&args(None, None), &data, true).expect_err("no token");
        assert_eq!(missing.code(), 4);
        files::write_private(&data.file("admin.token"), b"cga_local\n").expect("written");
        let target = Target::find(&args(None, None), &data, true).expect("found");
        assert_eq!((target.url.as_str(), target.token.as_str()), ("http://127.0.0.1:5", "cga_local"));
        assert_eq!(target.tenant, None);
        remember_local_tenant(&data, "demo").expect("written");
        let target = Target::find(&args(None, None), &data, true).expect("found");
        assert_eq!(target.tenant.as_deref(), Some("demo"));
    }

    #[test]
    fn a_url_and_a_token_file_go_before_the_data_directory() {
        let root = tempfile::tempdir().expect("temporary directory");
        let data = DataDir::at(root.path().to_path_buf());
        let path = root.path().join("t");
        std::fs::write(&path, "cga_file\n").expect("written");
        let target = Target::find(&args(Some("http://10.0.0.1:8081/"), Some(path)), &data, true).expect("found");
        assert_eq!((target.url.as_str(), target.token.as_str()), ("http://10.0.0.1:8081", "cga_file"));
        let bad = Target::find(&args(Some("10.0.0.1"), None), &data, true).err();
        assert!(bad.is_some());
    }
}
