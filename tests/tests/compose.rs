//! `deploy/docker-compose.yml` as it stands: control plane, node and PostgreSQL
//! in containers, made from what is installed on this machine; the main job
//! passes through it, and nobody holds a secret that is not theirs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clawgate_tests::compose::{self, Project};
use clawgate_tests::config::{binary, missing, root};
use clawgate_tests::engine::Engine;
use clawgate_tests::http::call;
use clawgate_tests::own_network;
use clawgate_tests::postgres::find_binaries;
use clawgate_tests::rest::Rest;
use clawgate_tests::rootfs::RootFs;
use clawgate_tests::stack::chat_request;
use clawgate_tests::wait::until_good;
use serde_json::{Value, json};

/// As awkward as a password may be.
const PASSWORD: &str = "canary/@:?#%20'pass word";
const SECRET: &str = "sk-compose-provider-key";
const BOT: &str = "composed";

/// What the entry point of the official image does, with PostgreSQL as it is
/// installed here: the same variables, the same volume.
const POSTGRES_ENTRY: &str = r#"#!/bin/sh
set -e
data=/var/lib/postgresql/data/cluster
if [ ! -s "$data/PG_VERSION" ]; then
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  initdb -D "$data" -U "$POSTGRES_USER" --pwfile=/tmp/password \
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --no-sync
  echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
  echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -j -D "$data" postgres
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off
"#;

/// The images of this test, which go with it.
struct Images<'a> {
    engine: &'a Engine,
    suffix: u32,
}

impl<'a> Images<'a> {
    /// `None` when PostgreSQL is not installed as Debian lays it out.
    fn build(engine: &'a Engine, folder: &Path) -> Option<Self> {
        let images = Self { engine, suffix: std::process::id() };
        let script = root().join("deploy/build-image.sh").display().to_string();
        let build = engine.spec(&script, &[&images.tag("clawgate")]);
        let _built = build.env("CLAWGATE_BINARY", &binary("clawgate").display().to_string()).run().success();
        let vendor = RootFs::new(folder, "vendor");
        vendor.program_as(&binary("clawgate-mock"), "/usr/local/bin/clawgate-mock");
        vendor.build(engine, &images.tag("vendor"), &[], &["ENTRYPOINT [\"/usr/local/bin/clawgate-mock\"]"]);
        images.build_postgres(folder)?;
        Some(images)
    }

    fn build_postgres(&self, folder: &Path) -> Option<()> {
        let bin = find_binaries()?;
        let version = bin.parent()?.file_name()?.to_str()?.to_owned();
        let library = Path::new("/usr/lib/postgresql").join(&version).join("lib");
        let share = Path::new("/usr/share/postgresql").join(&version);
        if !library.is_dir() || !share.is_dir() {
            return None;
        }
        let server = RootFs::new(folder, "postgres");
        for program in ["initdb", "postgres", "pg_isready", "psql"] {
            server.program(&bin.join(program));
        }
        server.program(Path::new("/bin/sh"));
        server.copy(&share);
        server.copy(Path::new("/usr/share/zoneinfo/UTC"));
        for module in ["plpgsql.so", "dict_snowball.so"] {
            server.copy(&library.join(module));
        }
        server.text("/entry", POSTGRES_ENTRY, 0o755);
        let path = format!("ENV PATH={}:/bin LC_ALL=C TZ=UTC", bin.display());
        let data = "/var/lib/postgresql/data";
        server.build(self.engine, &self.tag("postgres"), &[data], &[&path, "ENTRYPOINT [\"/entry\"]"]);
        Some(())
    }

    fn tag(&self, of: &str) -> String {
        format!("clawgate-test-{of}:{}", self.suffix)
    }
}

impl Drop for Images<'_> {
    fn drop(&mut self) {
        for of in ["clawgate", "vendor", "postgres"] {
            let _gone = self.engine.run("docker", &["image", "rm", "--force", &self.tag(of)]);
        }
    }
}

/// The mock vendor in a container on the project's outer network.
struct Vendor<'a> {
    engine: &'a Engine,
    name: String,
}

impl<'a> Vendor<'a> {
    fn start(engine: &'a Engine, project: &Project<'_>, image: &str) -> Self {
        let (name, network) = (format!("{}-vendor", project.name), format!("{}_outer", project.name));
        let mut arguments = vec!["run", "--detach", "--name", &name, "--network", &network];
        arguments.extend(["--network-alias", "vendor", "--read-only", "--tmpfs", "/tmp", image]);
        arguments.extend(["--listen", "0.0.0.0:9001", "--ledger", "/tmp/ledger.jsonl"]);
        let _id = engine.run("docker", &arguments).success();
        let vendor = Self { engine, name };
        let said = || engine.run("docker", &["logs", &vendor.name]);
        until_good("the vendor to listen", Duration::from_secs(10), said, |log| log.stdout.contains("ready"));
        vendor
    }
}

impl Drop for Vendor<'_> {
    fn drop(&mut self) {
        self.engine.remove(&self.name);
    }
}

#[test]
fn the_main_job_passes_through_compose() {
    own_network::with_engine("the_main_job_passes_through_compose", |engine, folder| {
        let Some(program) = compose::program(engine) else { return missing("a compose program (docker-compose)") };
        let Some(images) = Images::build(engine, folder) else { return missing("PostgreSQL as Debian installs it") };
        let project = Project::new(
            engine,
            program,
            &format!("clawgate-test-{}", std::process::id()),
            &[
                ("CLAWGATE_IMAGE", &images.tag("clawgate")),
                ("POSTGRES_IMAGE", &images.tag("postgres")),
                ("POSTGRES_PASSWORD", PASSWORD),
                ("CLAWGATE_PORT", "0"),
                ("CLAWGATE_CONSOLE_PORT", "0"),
                ("CLAWGATE_PRIVATE_UPSTREAMS", "vendor:9001"),
            ],
        );
        project.up();
        let vendor = Vendor::start(engine, &project, &images.tag("vendor"));
        let token = main_job(engine, &project, folder);
        nobody_holds_what_is_not_theirs(engine, &project, &images, &token);
        survives_being_made_anew(engine, &project, folder, &token);
        drop(vendor);
    });
}

/// Where a service's port can be reached on this machine.
fn published(engine: &Engine, project: &Project<'_>, service: &str, port: &str) -> SocketAddr {
    let listed = engine.run("docker", &["port", &project.container(service), port]).success();
    let line = listed.lines().next().and_then(|line| line.trim().parse().ok());
    line.unwrap_or_else(|| panic!("{service} does not publish {port}: {listed}"))
}

fn administrator(engine: &Engine, project: &Project<'_>, folder: &Path) -> Rest {
    let token = project.read("control", "/data/admin.token", folder).trim().to_owned();
    Rest { address: published(engine, project, "control", "8081"), token }
}

/// A provider key and a bot over REST, a request, its tokens in PostgreSQL.
/// Returns the bot's token.
fn main_job(engine: &Engine, project: &Project<'_>, folder: &Path) -> String {
    let rest = administrator(engine, project, folder);
    let key = json!({ "vendor": "openai", "label": "main", "secret": SECRET, "base_url": "http://vendor:9001/v1" });
    rest.post("/provider-keys", &key);
    let bot = rest.post("/bots", &json!({ "hostname": BOT }));
    let token = bot["token"].as_str().unwrap_or_else(|| panic!("no token in {bot}")).to_owned();
    let answer = call(published(engine, project, "proxy", "8080"), &chat_request(&token));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.json()["choices"][0]["message"]["content"].is_string(), "{}", answer.text());
    let tokens = answer.json()["usage"]["total_tokens"].clone();
    let row = rest.usage_rows(BOT, 1).remove(0);
    assert_eq!((&row["total_tokens"], &row["outcome"]), (&tokens, &json!("ok")), "{row}");
    let stats = until_good(
        "its tokens by the verb in the container",
        Duration::from_secs(10),
        || {
            let verb = ["clawgate", "usage", "stats", "--bot", BOT, "--output", "json"];
            serde_json::from_str::<Value>(&project.exec("control", &verb).success()).unwrap_or_default()
        },
        |stats| stats["requestCount"] == 1,
    );
    assert_eq!(stats["totalTokens"], tokens, "{stats}");
    assert_eq!(rows_in_postgres(project), "1");
    token
}

fn rows_in_postgres(project: &Project<'_>) -> String {
    let query = "SELECT count(*) FROM usage_events";
    let verb = ["psql", "-h", "/tmp", "-U", "clawgate", "-d", "clawgate", "-tAc", query];
    project.exec("database", &verb).success().trim().to_owned()
}

/// Not root, nothing writable but volumes, no capability; the password only
/// where the database is opened; nothing secret in image, log or process table.
fn nobody_holds_what_is_not_theirs(engine: &Engine, project: &Project<'_>, images: &Images<'_>, token: &str) {
    let ours = "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}";
    for service in ["control", "proxy"] {
        let how = project.inspect(service, ours);
        assert_eq!(how, "true 65532:65532 [ALL] [no-new-privileges:true]", "{service}");
        let mounts = project.inspect(service, "{{json .Mounts}}");
        assert!(!mounts.contains("\"bind\"") && !mounts.contains("docker.sock"), "{service}: {mounts}");
    }
    let held = |service: &str| {
        let environment = project.inspect(service, "{{range .Config.Env}}{{println .}}{{end}}");
        environment.lines().filter(|line| line.contains("canary")).count()
    };
    assert_eq!([held("database"), held("control"), held("proxy")], [1, 1, 0], "who holds the database's password");

    let tag = images.tag("clawgate");
    let image = engine.run("docker", &["image", "inspect", &tag]).success();
    let layers = engine.run("docker", &["history", "--no-trunc", &tag]).success();
    let logs = project.run(&["logs", "--no-color"]);
    let mut seen = vec![image, layers, logs.stdout, logs.stderr];
    for service in ["database", "control", "proxy"] {
        seen.push(engine.run("docker", &["top", &project.container(service), "-eo", "pid,args"]).success());
    }
    for secret in ["canary", SECRET, token] {
        let found = seen.iter().find(|text| text.contains(secret));
        assert!(found.is_none(), "{secret} in {found:?}");
    }
}

/// New containers on the same volumes: bot, key, node and usage are still there.
fn survives_being_made_anew(engine: &Engine, project: &Project<'_>, folder: &Path, token: &str) {
    let _stopped = project.run(&["stop"]).success();
    let codes = ["control", "proxy"].map(|service| project.inspect(service, "{{.State.ExitCode}}"));
    assert_eq!(codes, ["0", "0"], "they did not end well");
    let _removed = project.run(&["rm", "--force"]).success();
    project.up();
    let answer = call(published(engine, project, "proxy", "8080"), &chat_request(token));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let rows = administrator(engine, project, folder).usage_rows(BOT, 2);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    assert_eq!(rows_in_postgres(project), "2");
}
