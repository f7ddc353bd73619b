//! Real programs through the tunnel: redis, nginx and PostgreSQL with their
//! own clients, and a slow client of each beside them.
//!
//! What is not installed is skipped, with one line that says so;
//! `scripts/install-peers.sh` installs all of it.
#![cfg(feature = "cli")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the lint's exemption for tests does not reach their helpers"
)]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};
use support::server::Server;
use support::sockets::{Buffers, connect, connect_with};
use support::{holds_within, pattern, wait_until};
use tempfile::TempDir;

/// Seconds that a program may take for what it does in a few.
const PROGRAM_SECONDS: &str = "90";
/// For a port that was free and is taken when the program wants it.
const STARTS: usize = 3;

/// The path of a program; where it is not installed, says what is skipped.
fn find(name: &str, what: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps the programs of PostgreSQL together and off the path.
    let mut folders = Vec::new();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    folders.extend(std::env::split_paths(&path));
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        // Written past the capture of the test harness, which hides the
        // output of tests that pass.
        let line = format!("skipped: {what}: {name} is not installed (scripts/install-peers.sh)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    found
}

/// A server behind the tunnel, in a directory of its own.
struct Program {
    child: Child,
    port: u16,
    stop_by: Signal,
    directory: TempDir,
}

impl Program {
    /// Starts what `command` gives for a directory and a port, and waits until
    /// it listens.
    fn start(directory: TempDir, stop_by: Signal, command: impl Fn(&Path, u16) -> Command) -> Self {
        let mut program = None;
        for _ in 0..STARTS {
            let port = free_port();
            let log = File::create(directory.path().join("output")).unwrap();
            let mut child = command(directory.path(), port)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut exited = false;
            wait_until("the program listens", || {
                exited = child.try_wait().unwrap().is_some();
                exited || TcpStream::connect(address).is_ok()
            });
            if !exited {
                program = Some((child, port));
                break;
            }
        }
        let Some((child, port)) = program else {
            let output = fs::read_to_string(directory.path().join("output")).unwrap();
            panic!("it does not start: {output}");
        };
        Self {
            child,
            port,
            stop_by,
            directory,
        }
    }

    /// A tunnel to it.
    fn tunnel(&self, options: &[&str]) -> Server {
        self.tunnel_to(self.port, options)
    }

    fn tunnel_to(&self, port: u16, options: &[&str]) -> Server {
        let to = format!("localhost:{port}");
        Server::start("tunnel", &[&["--to", to.as_str()], options].concat())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), self.stop_by);
        let gone = holds_within(Duration::from_secs(10), || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        if !gone {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs a client program to its end, which must be a good one.
fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new("timeout")
        .arg(PROGRAM_SECONDS)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}{errors}", program.display());
    said
}

/// Waits until the tunnel has thrown out one client, and says by which line.
fn wait_for_the_slow_one(tunnel: &Server) -> String {
    let line = tunnel.wait_for_line("disconnecting");
    assert!(
        line.contains("] client ") && line.contains("write timeout"),
        "{line}"
    );
    line
}

fn redis() -> Option<(Program, PathBuf)> {
    const WHAT: &str = "redis through the tunnel";
    let (server, benchmark) = (find("redis-server", WHAT)?, find("redis-benchmark", WHAT)?);
    let program = Program::start(tempfile::tempdir().unwrap(), Signal::TERM, |directory, port| {
        let mut command = Command::new(&server);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(directory);
        command
    });
    Some((program, benchmark))
}

/// One command of redis and its one-line answer.
fn ask(redis: &mut BufReader<TcpStream>, command: &str) -> String {
    write!(redis.get_mut(), "{command}\r\n").unwrap();
    let mut line = String::new();
    redis.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn redis_benchmark_runs_through_the_tunnel_to_its_end() {
    let Some((redis, benchmark)) = redis() else { return };
    let tunnel = redis.tunnel(&[]);
    let port = tunnel.port().to_string();
    let connection = ["-h", "127.0.0.1", "-p", &port, "--csv"];
    for load in [
        &["-t", "ping,set,get,lrange_100", "-n", "5000", "-c", "50"][..],
        &[
            "-t", "set,get", "-n", "20000", "-c", "20", "-P", "50", "-d", "4000",
        ],
    ] {
        let table = run(&benchmark, &[&connection[..], load].concat());
        assert!(table.contains("\"GET\"") && table.contains("\"SET\""), "{table}");
    }
    assert!(tunnel.lines_with("disconnecting").is_empty());
}

#[test]
fn a_stalled_subscriber_of_redis_is_thrown_out_and_the_benchmark_and_a_good_one_go_on() {
    const MESSAGES: usize = 1000;
    const MESSAGE_BYTES: usize = 16 * 1024;
    let Some((redis, benchmark)) = redis() else { return };
    let tunnel = redis.tunnel(&["--grace", "2s"]);
    let subscribe = |buffers| {
        let mut client = BufReader::new(connect_with(tunnel.address(), buffers));
        assert_eq!(ask(&mut client, "SUBSCRIBE news"), "*3");
        client
    };
    let stalled = subscribe(Buffers::SMALL);
    let mut good = subscribe(Buffers::default());
    let hearing = thread::spawn(move || {
        let mut word = vec![0; b"$4\r\nnews\r\n:1\r\n$9\r\nsubscribe\r\n".len()];
        good.read_exact(&mut word).unwrap();
        let each = format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${MESSAGE_BYTES}\r\n");
        let mut message = vec![0; each.len() + MESSAGE_BYTES + 2];
        for _ in 0..MESSAGES {
            good.read_exact(&mut message).unwrap();
            assert!(message.starts_with(each.as_bytes()));
        }
    });
    let benchmarking = {
        let port = tunnel.port().to_string();
        thread::spawn(move || {
            let load = ["-t", "set,get", "-n", "20000", "-c", "20", "--csv"];
            run(
                &benchmark,
                &[&["-h", "127.0.0.1", "-p", &port], &load[..]].concat(),
            )
        })
    };
    let mut publisher = BufReader::new(connect(tunnel.address()));
    let message = "x".repeat(MESSAGE_BYTES);
    for _ in 0..MESSAGES {
        let heard = ask(&mut publisher, &format!("PUBLISH news {message}"));
        assert!(heard == ":2" || heard == ":1", "{heard}");
    }
    wait_for_the_slow_one(&tunnel);
    hearing.join().unwrap();
    let table = benchmarking.join().unwrap();
    assert!(table.contains("\"GET\""), "{table}");
    // Redis has heard of it too: only the good one is left, and then nobody.
    wait_until("redis has let go of them", || {
        ask(&mut publisher, "PUBLISH news last") == ":0"
    });
    assert_eq!(tunnel.lines_with("disconnecting").len(), 1);
    drop(stalled);
}

/// An nginx that serves one file, and on a second port what it knows of the
/// client by the PROXY protocol.
fn nginx(content: &[u8]) -> Option<(Program, u16, PathBuf)> {
    const WHAT: &str = "nginx through the tunnel";
    let (server, curl) = (find("nginx", WHAT)?, find("curl", WHAT)?);
    let told_port = free_port();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), content).unwrap();
    let program = Program::start(directory, Signal::TERM, |directory, port| {
        let folder = directory.display();
        // The user directive is refused, with a warning, to all but root.
        let user = if getuid().is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
            .concat();
        let configuration = format!(
            "{user}
             daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
             events {{ worker_connections 512; }}
             http {{
                 access_log off; {temporary}
                 server {{ listen 127.0.0.1:{port}; root {folder}; }}
                 server {{
                     listen 127.0.0.1:{told_port} proxy_protocol;
                     location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port\"; }}
                 }}
             }}"
        );
        fs::write(directory.join("conf"), configuration).unwrap();
        let mut command = Command::new(&server);
        command.arg("-e").arg(directory.join("error"));
        command
            .arg("-p")
            .arg(directory)
            .arg("-c")
            .arg(directory.join("conf"));
        command
    });
    Some((program, told_port, curl))
}

#[test]
fn curl_gets_a_file_of_nginx_whole_and_wrk_no_errors_beside_a_client_that_never_reads() {
    let content = pattern(16 * 1024 * 1024);
    let Some((nginx, _, curl)) = nginx(&content) else {
        return;
    };
    let tunnel = nginx.tunnel(&["--grace", "1s"]);
    let url = format!("http://{}/file", tunnel.address());
    let mut stalled = connect_with(tunnel.address(), Buffers::SMALL);
    write!(stalled, "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let fetched = nginx.directory.path().join("fetched");
    run(&curl, &["-sS", "--fail", "-o", fetched.to_str().unwrap(), &url]);
    assert!(
        fs::read(&fetched).unwrap() == content,
        "other bytes than the file's"
    );
    if let Some(wrk) = find("wrk", "many HTTP clients through the tunnel") {
        let table = run(&wrk, &["-t1", "-c8", "-d2s", &url]);
        assert!(
            table.contains("Requests/sec") && !table.contains("Socket errors"),
            "{table}"
        );
    }
    wait_for_the_slow_one(&tunnel);
    assert_eq!(tunnel.lines_with("disconnecting").len(), 1);
}

#[test]
fn nginx_hears_by_the_proxy_protocol_who_the_client_is() {
    let Some((nginx, told_port, curl)) = nginx(b"") else {
        return;
    };
    for version in ["v1", "v2"] {
        let tunnel = nginx.tunnel_to(told_port, &["--proxy-protocol", version]);
        let url = format!("http://{}/", tunnel.address());
        let said = run(
            &curl,
            &["-sS", "--fail", "-w", "\n%{local_ip} %{local_port}", &url],
        );
        let (told, own) = said.split_once('\n').unwrap();
        assert_eq!(told, own, "with {version}");
    }
}

/// A PostgreSQL of its own, and the folder of its programs. The server
/// refuses to run as root, so root runs it as the user of Debian's package.
fn postgres() -> Option<(Program, PathBuf)> {
    const WHAT: &str = "PostgreSQL through the tunnel";
    let server = find("postgres", WHAT)?;
    let folder = server.parent().unwrap().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let user = getuid().is_root().then(|| user_of_postgres(&directory));
    let as_user = move |program: &Path| {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        command.current_dir("/");
        command
    };
    let data = directory.path().join("data");
    let made = as_user(&folder.join("initdb"))
        .arg("-D")
        .arg(&data)
        .args(["-A", "trust", "-U", "postgres", "--no-sync"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // SIGINT ends the sessions too; SIGTERM would wait for them.
    let program = Program::start(directory, Signal::INT, |directory, port| {
        let mut command = as_user(&server);
        command.arg("-D").arg(directory.join("data"));
        command.arg("-k").arg(directory);
        command.args(["-h", "127.0.0.1", "-F", "-p", &port.to_string()]);
        command
    });
    Some((program, folder))
}

/// The user postgres, who then owns the directory.
fn user_of_postgres(directory: &TempDir) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .expect("Debian's package of PostgreSQL makes this user");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    let (uid, gid) = (fields.next().unwrap(), fields.next().unwrap());
    chown(directory.path(), Some(uid), Some(gid)).unwrap();
    (uid, gid)
}

/// A client of PostgreSQL that asks for a thousand million bytes and reads
/// none of them (the protocol: a startup message, then a query).
fn ask_postgres_for_too_much(tunnel: &Server, query: &str) -> TcpStream {
    let mut client = connect_with(tunnel.address(), Buffers::SMALL);
    let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = |bytes: usize| u32::try_from(bytes + 4).unwrap().to_be_bytes();
    client.write_all(&length(startup.len())).unwrap();
    client.write_all(startup).unwrap();
    client.write_all(b"Q").unwrap();
    client.write_all(&length(query.len() + 1)).unwrap();
    client.write_all(query.as_bytes()).unwrap();
    client.write_all(b"\0").unwrap();
    client
}

#[test]
fn pgbench_and_psql_run_through_the_tunnel_beside_a_session_that_never_reads_its_answer() {
    let Some((postgres, folder)) = postgres() else {
        return;
    };
    let direct_port = postgres.port.to_string();
    let psql_at = |port: &str, query: &str| {
        let target = ["-h", "127.0.0.1", "-p", port, "-U", "postgres", "-XAtc", query];
        run(&folder.join("psql"), &target)
    };
    wait_until("PostgreSQL answers", || {
        let ready = Command::new(folder.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &direct_port])
            .status();
        ready.unwrap().success()
    });
    let tunnel = postgres.tunnel(&["--grace", "1s"]);
    let port = tunnel.port().to_string();
    let endless = "select repeat('x', 1000) from generate_series(1, 1000000)";
    let stalled = ask_postgres_for_too_much(&tunnel, endless);

    if folder.join("pgbench").is_file() {
        let target = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        let pgbench = folder.join("pgbench");
        run(
            &pgbench,
            &[&target[..], &["-i", "-q", "-s", "1", "postgres"]].concat(),
        );
        let table = run(
            &pgbench,
            &[&target[..], &["-c", "4", "-t", "50", "postgres"]].concat(),
        );
        assert!(
            table.contains("transactions actually processed: 200/200"),
            "{table}"
        );
    }
    let rows = psql_at(&port, "select repeat('y', 1000) from generate_series(1, 8000)");
    assert_eq!(rows.len(), 8000 * 1001);

    wait_for_the_slow_one(&tunnel);
    // The session that filled the tunnel is gone from the server as well.
    wait_until("PostgreSQL has let go of it", || {
        let query = "select count(*) from pg_stat_activity where query like '%1000000)'";
        psql_at(&direct_port, query).trim() == "0"
    });
    assert_eq!(tunnel.lines_with("disconnecting").len(), 1);
    drop(stalled);
}
