//! Real servers behind the gateway, each of which writes down every request as
//! it understood it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::installed;
use crate::process::{Process, Spec};
use crate::wait::until;

/// A server and its log: one line `PROBE<TAB>AUTHORIZATION<TAB>METHOD` for each
/// request.
#[derive(Debug)]
pub struct Backend {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    log: PathBuf,
    _process: Process,
}

const NGINX: &str = r#"
daemon off; master_process off; pid PID; error_log stderr error;
events { worker_connections 512; }
http {
  log_format probe '$http_x_probe	$http_authorization	$request_method';
  access_log LOG probe;
  client_body_temp_path TMP/b; proxy_temp_path TMP/p; fastcgi_temp_path TMP/f; uwsgi_temp_path TMP/u; scgi_temp_path TMP/s;
  server { listen 127.0.0.1:PORT; location / { default_type application/json; return 200 '{"id":"n","choices":[]}'; } }
}
"#;

const PYTHON: &str = r#"
import http.server, sys
log = open(sys.argv[2], "a", buffering=1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        log.write("\t".join([self.headers.get("x-probe", ""), ",".join(self.headers.get_all("authorization") or []), self.command]) + "\n")
        body = b'{"id":"p","choices":[]}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = answer
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

const NODE: &str = r#"
const http = require("http"), fs = require("fs");
const log = fs.openSync(process.argv[3], "a");
http.createServer((request, response) => {
  request.on("data", () => {});
  request.on("end", () => {
    const h = request.headers;
    fs.writeSync(log, [h["x-probe"] || "", h["authorization"] || "", request.method].join("\t") + "\n");
    response.writeHead(200, { "content-type": "application/json" });
    response.end('{"id":"j","choices":[]}');
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
"#;

/// Every server this machine has, at least Python's; the names of those that it
/// lacks are returned beside them.
///
/// # Panics
/// One does not start.
#[must_use]
pub fn start_all(folder: &Path) -> (Vec<Backend>, Vec<&'static str>) {
    let (mut running, mut lacking) = (Vec::new(), Vec::new());
    for (name, program) in [("nginx", "nginx"), ("python", "python3"), ("node", "node")] {
        let found =
            installed(program).or_else(|| Some(PathBuf::from("/usr/sbin").join(program)).filter(|p| p.is_file()));
        let found = found.or_else(|| (name == "node").then(crate::config::node).flatten());
        match found {
            Some(program) => running.push(start(name, program, folder)),
            None => lacking.push(name),
        }
    }
    (running, lacking)
}

fn start(name: &'static str, program: PathBuf, folder: &Path) -> Backend {
    let log = folder.join(format!("{name}.requests"));
    std::fs::write(&log, "").expect("a log");
    // None of them says which port it got: a free one is looked for before.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let port = address.port().to_string();
    let script = |text: &str, end: &str| {
        let path = folder.join(format!("{name}.{end}"));
        std::fs::write(&path, text).expect("a script");
        path.display().to_string()
    };
    let temporary = folder.join(format!("{name}.tmp"));
    std::fs::create_dir_all(&temporary).expect("a folder");
    let (log_text, tmp) = (log.display().to_string(), temporary.display().to_string());
    let arguments = match name {
        "nginx" => {
            let pid = format!("{tmp}/pid");
            let text = NGINX.replace("PID", &pid).replace("LOG", &log_text).replace("TMP", &tmp).replace("PORT", &port);
            vec!["-c".to_owned(), script(&text, "conf")]
        }
        "python" => vec![script(PYTHON, "py"), port, log_text],
        _ => vec![script(NODE, "cjs"), port, log_text],
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Spec::new(name, program, folder, &arguments).start();
    until(&format!("{name} to listen"), Duration::from_secs(20), || TcpStream::connect(address).ok());
    Backend { name, address, log, _process: process }
}

impl Backend {
    /// Everything it saw, in order: probe, authorization, method.
    ///
    /// # Panics
    /// The log is gone.
    #[must_use]
    pub fn requests(&self) -> Vec<(String, String, String)> {
        let text = std::fs::read_to_string(&self.log).expect("the log");
        let fields = |line: &str| {
            let mut parts = line.split('\t').map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        };
        text.lines().map(fields).collect()
    }
}
