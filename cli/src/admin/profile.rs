//! The saved profile of `clawgate login`: one control plane and a token,
//! `$XDG_CONFIG_HOME/clawgate/profile.toml` (0600).

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::client::Api;
use super::output::say;
use super::secret;
use super::target::{Target, checked_url};
use crate::failure::Failure;
use crate::files;

/// Saves a control plane's address and an API token for later verbs
#[derive(clap::Args, Debug)]
pub(crate) struct LoginArgs {
    /// The control plane
    url: String,
    /// File with the API token, `-` for stdin; without it you are asked
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Tenant that later verbs act in
    #[arg(long, value_name = "SLUG")]
    tenant: Option<String>,
}

/// What is saved.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Without a trailing slash.
    pub(crate) url: String,
    /// Bearer token.
    pub(crate) token: String,
    /// Tenant slug.
    pub(crate) tenant: Option<String>,
}

impl Profile {
    /// The saved profile, if there is one.
    pub(crate) fn load() -> Result<Option<Self>, Failure> {
        path().filter(|p| p.exists()).map_or(Ok(None), |path| Self::read(&path).map(Some))
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let doing = format!("reading the profile {}", path.display());
        let mode = std::fs::metadata(path).map_err(|e| Failure::failed(&doing, e))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Failure::NotAllowed(format!(
                "the profile {} can be read by others: chmod 600 it, then change its token",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Failure::failed(&doing, e))?;
        // The parser's own message quotes the line, and a line may be the token.
        toml::from_str(&text)
            .map_err(|_| Failure::Failed(format!("{doing}: not a profile; run `clawgate login` again")))
    }

    fn save(&self, path: &Path) -> Result<(), Failure> {
        let doing = format!("writing the profile {}", path.display());
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| Failure::failed(&doing, e))?;
        }
        let mut text = format!("url = {}\ntoken = {}\n", quoted(&self.url), quoted(&self.token));
        if let Some(tenant) = &self.tenant {
            text.push_str(&format!("tenant = {}\n", quoted(tenant)));
        }
        files::write_private(path, text.as_bytes()).map_err(|e| Failure::failed(&doing, e))
    }
}

/// A JSON string is a TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn path() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(base.join("clawgate").join("profile.toml"))
}

/// `clawgate login`: proves the token before it is saved.
pub(crate) async fn login(args: LoginArgs) -> Result<(), Failure> {
    let url = checked_url(&args.url)?;
    let path = path().ok_or_else(|| Failure::Failed("no home directory to save the profile in".to_owned()))?;
    let token = secret::read("API token", args.token_file.as_ref())?;
    let api = Api::new(Target { url: url.clone(), token: token.clone(), tenant: args.tenant.clone() })?;
    api.get("/auth/me", &[]).await?;
    Profile { url: url.clone(), token, tenant: args.tenant }.save(&path)?;
    say(&format!("saved {url} in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_round_trips_and_must_be_private() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join("x/profile.toml");
        let profile =
            Profile { url: "https://c.example".into(), token: "cga_\"\\x".into(), tenant: Some("acme".into()) };
        profile.save(&path).expect("saved");
        let read = Profile::read(&path).expect("read");
        assert_eq!((read.url, read.token, read.tenant), (profile.url, profile.token, profile.tenant));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert_eq!(Profile::read(&path).err().expect("refused").code(), 4);
    }

    #[test]
    fn a_broken_profile_does_not_quote_its_token() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join("profile.toml");
        files::write_private(&path, b"token = cga_secret\n").expect("written");
        let text = Profile::read(&path).err().expect("refused").to_string();
        assert!(!text.contains("cga_secret"), "{text}");
    }
}
