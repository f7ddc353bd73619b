//! Who may ask, and how.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::operator::{Watched, request};
use crate::support::server::{BINARY, Server};

#[test]
fn a_host_that_is_no_address_is_refused_as_it_may_be_dns_rebinding() {
    let watched = Watched::start("echo", &[]);
    let ask = |host: &str| {
        request(
            watched.admin,
            &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n"),
        )
    };
    for host in ["127.0.0.1", "localhost:9001", "[::1]:80"] {
        assert_eq!(ask(host).status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.nip.io", "localhost.evil.example:9001"] {
        assert_eq!(ask(host).status, 403, "{host}");
    }
}

#[test]
fn with_a_token_nobody_is_told_anything_without_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "correct horse\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = path.to_str().unwrap();
    let watched = Watched::of(Server::echo(&[
        "--admin",
        "127.0.0.1:0",
        "--admin-token-file",
        file,
    ]));
    let ask = |target: &str, field: &str| {
        request(
            watched.admin,
            &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{field}"),
        )
    };
    for target in ["/", "/metrics", "/clients", "/nothing"] {
        for field in [
            "",
            "Authorization: Bearer wrong\r\n",
            "Authorization: Basic correct horse\r\n",
        ] {
            let reply = ask(target, field);
            assert_eq!(reply.status, 401, "{target} {field}");
            assert!(reply.head.contains("WWW-Authenticate: Bearer"), "{reply:?}");
            assert!(!reply.body.contains("highwater_"), "{reply:?}");
        }
    }
    let with_token = "Authorization: Bearer correct horse\r\n";
    assert_eq!(ask("/metrics", with_token).status, 200);
    assert_eq!(ask("/clients", with_token).status, 200);
    assert_eq!(ask("/healthz", "").status, 200, "a balancer has no token");
}

#[test]
fn beyond_loopback_it_does_not_start_without_a_token_file_that_only_its_owner_reads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "secret\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = path.to_str().unwrap();
    for (options, word) in [
        (vec!["--admin", "0.0.0.0:0"], "--admin-token-file"),
        (
            vec!["--admin", "127.0.0.1:0", "--admin-token-file", file],
            "chmod 600",
        ),
        (vec!["--admin", "localhost"], "127.0.0.1:9001"),
    ] {
        let output = Command::new(BINARY)
            .args(["echo", "--port", "0"])
            .args(options)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn nothing_can_be_changed_and_what_is_not_there_is_named() {
    let watched = Watched::start("echo", &[]);
    let ask = |line: &str| request(watched.admin, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n"));
    let reply = ask("POST /clients");
    assert_eq!(reply.status, 405);
    assert!(reply.head.contains("Allow: GET, HEAD"), "{reply:?}");
    assert_eq!(ask("DELETE /").status, 405);
    let reply = ask("GET /nothing");
    assert!(
        reply.status == 404 && reply.body.contains("/metrics"),
        "{reply:?}"
    );
    assert_eq!(ask("GET /clients?sort=size").status, 400);
    assert_eq!(ask("GET /clients?limit=many").status, 400);
    let reply = ask("HEAD /metrics");
    assert!(reply.status == 200 && reply.body.is_empty(), "{reply:?}");
    assert_eq!(ask("GET").status, 400);
}

#[test]
fn a_port_that_the_kernel_chose_is_told_though_the_log_is_silent() {
    let mut server = Command::new(BINARY)
        .args([
            "echo",
            "--port",
            "0",
            "--admin",
            "127.0.0.1:0",
            "--log-level",
            "off",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut stderr = BufReader::new(server.stderr.take().unwrap());
    stderr.read_line(&mut told).unwrap();
    let admin = told.trim_end().strip_prefix("admin page on http://");
    let admin = admin.unwrap_or_else(|| panic!("{told:?}")).trim_end_matches('/');
    let reply = request(
        admin.parse().unwrap(),
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    );
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(stderr.lines().count(), 0, "and nothing else");
}
