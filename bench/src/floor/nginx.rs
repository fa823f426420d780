//! nginx as a floor: `proxy_pass` with keep-alive on both legs.

use std::path::Path;

use super::{KEEPALIVE, Legs};

/// A configuration that is complete on its own; nginx runs in the foreground
/// and writes nothing outside `folder`.
pub(crate) fn configuration(legs: &Legs, folder: &Path) -> String {
    let folder = folder.display();
    let Legs { listen, upstream, threads } = legs;
    format!(
        r"daemon off;
worker_processes {threads};
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log crit;
events {{
    worker_connections 4096;
    use epoll;
    multi_accept on;
}}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 60s;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream vendor {{
        server {upstream};
        keepalive {KEEPALIVE};
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen} reuseport;
        location / {{
            proxy_pass http://vendor;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_buffering off;
        }}
    }}
}}
"
    )
}
