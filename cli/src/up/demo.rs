//! What `up --demo` puts into the control plane: a tenant, provider keys that
//! lead to the mock vendor, a bot.
//!
//! Invariant: goes through the public REST API only, and a second run changes
//! nothing but the mock's address.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::admin::{Api, Target, client_path, remember_local_tenant};
use crate::client_env::{self, Client, TokenText};
use crate::failure::Failure;
use crate::files::{self, DataDir};

/// Slug of the demo tenant and hostname of the demo bot.
const DEMO: &str = "demo";
/// The mock vendor accepts any credential; this one says what it is.
const SECRET: &str = "mock-vendor-key-without-value";
/// Vendors the mock can stand in for, and where it does below its address.
const VENDORS: [(&str, &str); 3] = [("openai", "/v1"), ("anthropic", "/v1"), ("google", "/v1beta")];
const LABEL: &str = "Demo (mock vendor)";

/// Creates what is missing. Writes the bot's token to `<data-dir>/demo.token`.
pub(crate) async fn prepare(data: &DataDir, target: Target, mock: SocketAddr) -> Result<(), Failure> {
    let api = Api::new(target)?;
    let tenants = api.list("/tenants", &[], 1000).await?;
    if !tenants.iter().any(|tenant| text(tenant, "slug") == DEMO) {
        api.post("/tenants", &json!({ "slug": DEMO, "name": "Demo" })).await?;
    }
    let api = api.in_tenant(DEMO);
    let keys = api.list("/provider-keys", &[], 1000).await?;
    for (vendor, root) in VENDORS {
        let base_url = format!("http://{mock}{root}");
        provider_key(&api, &keys, vendor, &base_url).await?;
    }
    bot(&api, data).await?;
    remember_local_tenant(data, DEMO)
}

async fn provider_key(api: &Api, keys: &[Value], vendor: &str, base_url: &str) -> Result<(), Failure> {
    let existing = keys.iter().find(|key| text(key, "label") == LABEL && text(key, "vendor") == vendor);
    match existing {
        Some(key) if text(key, "base_url") == base_url => {}
        Some(key) => {
            let path = client_path(&["provider-keys", text(key, "id")])?;
            api.patch(&path, &json!({ "base_url": base_url, "secret": SECRET })).await?;
        }
        None => {
            let body = json!({ "vendor": vendor, "label": LABEL, "secret": SECRET, "base_url": base_url });
            api.post("/provider-keys", &body).await?;
        }
    }
    Ok(())
}

async fn bot(api: &Api, data: &DataDir) -> Result<(), Failure> {
    let file = data.file("demo.token");
    let bots = api.list("/bots", &[], 1000).await?;
    let answer = if !bots.iter().any(|bot| text(bot, "hostname") == DEMO) {
        api.post("/bots", &json!({ "hostname": DEMO, "name": "Demo bot" })).await?
    } else if !file.exists() {
        api.post(&client_path(&["bots", DEMO, "tokens"])?, &json!({ "name": DEMO })).await?
    } else {
        return Ok(());
    };
    let token = text(&answer.body, "token");
    files::write_private(&file, format!("{token}\n").as_bytes())
        .map_err(|e| Failure::failed(&format!("writing {}", file.display()), e))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The line to paste.
pub(crate) fn curl_line(data: &DataDir, public_url: &str) -> Result<String, Failure> {
    let file = std::path::absolute(data.file("demo.token")).map_err(|e| Failure::failed("naming the token file", e))?;
    let base = client_env::public_url(public_url).map_err(|e| Failure::Usage(e.to_string()))?;
    let token = TokenText::File(file.display().to_string());
    Ok(client_env::lines(Client::Curl, &base, &token, "gpt-4o-mini").join("\n"))
}
