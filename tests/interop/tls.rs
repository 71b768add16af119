//! T9: servers whose certificates are not to be believed, and one that speaks TLS 1.1 only.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, Tool, again};
use crate::process::{Running, run};

/// Makes a key and a certificate for `host` that the authority in `folder` vouches for, for so many days from now.
fn certificate(folder: &Path, name: &str, host: &str, days: &str) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let openssl = || {
        let mut command = Command::new("openssl");
        command.current_dir(folder);
        command
    };
    let subject = format!("/CN={name}");
    if host.is_empty() {
        let out = ["-keyout", "ca.key", "-out", "ca.pem", "-days", days, "-subj", &subject];
        run("openssl", openssl().args(["req", "-x509"]).args(key).args(out));
        return;
    }
    let file = |ending: &str| format!("{name}.{ending}");
    let out = ["-keyout", &file("key"), "-out", &file("csr"), "-subj", &subject];
    run("openssl", openssl().arg("req").args(key).args(out));
    fs::write(folder.join(file("ext")), format!("subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n")).unwrap();
    let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days, "-extfile", &file("ext")];
    run("openssl", openssl().args(["x509", "-req", "-in", &file("csr"), "-out", &file("pem")]).args(by));
}

#[test]
fn t9_expired_for_another_host_and_too_old_a_protocol() {
    let Some(lab) = Lab::with(&[Tool::Openssl]) else { return };
    let folder = lab.folder("tls");
    certificate(&folder, "authority", "", "30");
    for (name, host, days) in
        [("good", "localhost", "30"), ("expired", "localhost", "-1"), ("other", "a.example", "30")]
    {
        certificate(&folder, name, host, days);
    }
    let gannet = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gannet"));
        command.env("HOME", &folder).env("SSL_CERT_FILE", folder.join("ca.pem")).current_dir(&folder);
        command
    };
    run("gannet", gannet().args(["create", "ca.pem", "-o", "a.torrent"]));
    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    for (name, more, why) in [
        ("good", &[][..], None),
        ("expired", &[], Some("Expired")),
        ("other", &[], Some("not valid for name")),
        ("good", &old, Some("ProtocolVersion")),
    ] {
        // It is there when it takes connections; the first of them says nothing.
        let (_server, port) = again(|port| {
            let (accept, files) = (port.to_string(), [format!("{name}.pem"), format!("{name}.key")]);
            let mut command = Command::new("openssl");
            command.current_dir(&folder).args(["s_server", "-WWW", "-quiet", "-accept", &accept]);
            command.args(["-cert", &files[0], "-key", &files[1]]).args(more);
            let mut server = Running::start(&format!("openssl-{port}"), &mut command, &lab.folder("logs"));
            server.try_until("a connection", std::time::Duration::from_secs(10), |_| {
                std::net::TcpStream::connect(("127.0.0.1", port)).ok()
            })?;
            Ok((server, port))
        });
        let url = format!("https://localhost:{port}/a.torrent");
        let output = gannet().args(["info", &url]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match why {
            None => assert!(output.status.success(), "{said}"),
            Some(why) => {
                assert_eq!(output.status.code(), Some(5), "{name}: {said}");
                assert!(said.contains(why), "{name}: {said}");
            }
        }
    }
}
