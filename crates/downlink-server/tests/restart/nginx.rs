//! Runs nginx. The files of nginx are in the folder of the test, and nginx inherits its listening
//! socket from the test.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use super::program::{Program, Socket};

/// How nginx connects to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Connections {
    /// nginx opens a new connection for each request, and repeats no request.
    Fresh,
    /// nginx keeps a few connections open. If a connection ends without an answer, nginx repeats
    /// the request.
    Kept,
}

/// A running nginx. Dropping this value ends nginx with SIGTERM and not with SIGKILL, because the
/// worker processes of nginx would go on after SIGKILL.
pub(crate) struct Nginx {
    program: Program,
    pub(crate) url: String,
    log: std::path::PathBuf,
}

impl Nginx {
    /// Starts nginx with a listening socket that the test has opened, so no other program can take
    /// the port.
    pub(crate) fn start(app: &Socket, connections: Connections, folder: &Path) -> Self {
        let front = Socket::tcp();
        let file = folder.join("nginx.conf");
        let text = configuration(&front, app, connections, &folder.display().to_string());
        fs::write(&file, text).expect("a file");
        let words =
            ["nginx", "-p", folder.to_str().expect("UTF-8"), "-c", file.to_str().expect("UTF-8")];
        Self {
            program: Program::start(&front, "NGINX='3;'", &words),
            url: format!("http://{}", front.place),
            log: folder.join("access.log"),
        }
    }

    /// Ends nginx and returns the results of all requests, which nginx has written to its log. The
    /// log is complete only after nginx has ended.
    pub(crate) fn requests(self) -> Requests {
        let log = self.log.clone();
        drop(self);
        let text = fs::read_to_string(log).expect("the log of nginx");
        let mut requests = Requests::default();
        for line in text.lines() {
            *requests.0.entry(line.to_owned()).or_default() += 1;
        }
        requests
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.program.terminate();
        self.program.gone();
    }
}

/// The number of requests for each different line of nginx's log. A line has the method, the
/// status, and the status of each attempt to send the request to a server.
#[derive(Debug, Default)]
pub(crate) struct Requests(BTreeMap<String, usize>);

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nginx's log:")?;
        self.0.iter().try_for_each(|(sort, count)| write!(f, " {count} × {sort};"))
    }
}

fn configuration(front: &Socket, app: &Socket, connections: Connections, folder: &str) -> String {
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/{what};\n"))
        .concat();
    let (kept, repeated) = match connections {
        Connections::Fresh => ("", "off"),
        Connections::Kept => ("keepalive 16;", "error timeout non_idempotent"),
    };
    format!(
        "daemon off;\nuser root;\npid {folder}/nginx.pid;\nworker_rlimit_nofile 16384;\n\
         error_log {folder}/error.log;\nevents {{ worker_connections 8192; }}\n\
         http {{\nlog_format attempts '$request_method $status ($upstream_status)';\n\
         access_log {folder}/access.log attempts;\n{temp}\
         upstream app {{ server {app}; {kept} }}\n\
         server {{\nlisten {front};\nlocation / {{\nproxy_pass http://app;\n\
         proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host;\nproxy_buffering off;\n\
         proxy_next_upstream {repeated};\n}}\n}}\n}}\n",
        app = app.place,
        front = front.place,
    )
}
