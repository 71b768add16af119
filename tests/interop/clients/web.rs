//! Web servers, as web seeds.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::{Lab, again, find_program};
use crate::process::Running;

/// A server of files that runs on a port of its own.
pub struct Web {
    _process: Running,
    port: u16,
    log: PathBuf,
}

impl Web {
    /// The address of what is at `path` below the folder that it serves.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// One line for each request so far.
    pub fn log(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn up(mut process: Running, port: u16, log: PathBuf) -> Result<Self, String> {
        process.try_until("an answer", super::START, |_| answers(port).ok())?;
        Ok(Self { _process: process, port, log })
    }
}

/// nginx, as it is installed.
pub fn nginx(lab: &Lab, root: &Path) -> Web {
    again(|port| {
        let (arguments, log) = nginx_arguments(lab, root, &format!("127.0.0.1:{port}"));
        let mut command = lab.command(nginx_program());
        Web::up(Running::start("nginx", command.args(arguments), &lab.path("logs")), port, log)
    })
}

/// Where it is.
pub fn nginx_program() -> PathBuf {
    find_program("nginx").expect("nginx, which the lab has found")
}

/// Its arguments, to serve `root` at the address `at`; and where it notes its requests.
pub fn nginx_arguments(lab: &Lab, root: &Path, at: &str) -> ([OsString; 6], PathBuf) {
    let dir = lab.folder(&format!("nginx-{}", at.replace(':', "-")));
    let log = dir.join("access.log");
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {}/{name};\n", dir.display()))
        .concat();
    // One process, which ends with the test.
    let config = format!(
        "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{paths}    \
         log_format ranges '$status $request_method $uri $http_range';\n    access_log {log} ranges;\n    \
         server {{ listen {at}; root \"{root}\"; }}\n}}\n",
        dir = dir.display(),
        log = log.display(),
        root = root.display(),
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config).expect("a configuration");
    (["-e".into(), "stderr".into(), "-p".into(), dir.into(), "-c".into(), path.into()], log)
}

/// A server of ranges made of python's `http.server`.
pub fn python(lab: &Lab, root: &Path) -> Web {
    again(|port| {
        let log = lab.folder("logs").join(format!("ranges-{port}.log"));
        let mut command = lab.command("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/range_server.py"));
        command.arg(port.to_string()).arg(root).arg(&log);
        Web::up(Running::start("range_server.py", &mut command, &lab.path("logs")), port, log)
    })
}

/// Whether somebody speaks HTTP there.
fn answers(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"HEAD /nothing HTTP/1.0\r\n\r\n")?;
    let mut start = [0; 5];
    stream.read_exact(&mut start)?;
    if &start == b"HTTP/" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
