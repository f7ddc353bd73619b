//! Real servers: programs that may be installed, and this project's own.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A program as a server: what it needs, and how it starts.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    /// The command that must be there.
    pub(crate) needs: &'static str,
    /// Writes what it needs into the directory, and says how it is started.
    pub(crate) command: fn(&Path, u16) -> Command,
}

/// How long a program may take until it listens.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// A server that ends with its value.
pub(crate) struct Running {
    pub(crate) host: Ipv4Addr,
    pub(crate) port: u16,
    child: Child,
    _directory: Option<tempfile::TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It leads a process group of its own, so that its children end with it.
        let group = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _gone = self.child.wait();
    }
}

/// Where a command is; daemons may be outside of everybody's path.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    if command.starts_with('/') {
        return Some(PathBuf::from(command)).filter(|path| path.exists());
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut places = path
        .split(':')
        .map(|directory| Path::new(directory).join(command));
    places.find(|place| place.is_file())
}

impl Program {
    /// `None` when it is not installed, or, as the message says, does not start.
    pub(crate) fn start(&self) -> Result<Option<Running>, String> {
        if find(self.needs).is_none() {
            return Ok(None);
        }
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = free_port();
        let output = File::create(directory.path().join("output")).map_err(|error| error.to_string())?;
        let child = (self.command)(directory.path(), port)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(|error| error.to_string())?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.needs))?;
        let mut running = Running {
            host: Ipv4Addr::LOCALHOST,
            port,
            child,
            _directory: Some(directory),
        };
        running.wait_until_it_listens()?;
        Ok(Some(running))
    }
}

impl Running {
    /// One of the small servers, in a process of its own.
    pub(crate) fn small(name: &str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["--serve", name]);
        Self::spawn(name, command)
    }

    /// One of the small servers, in a network namespace that leads here by a pair of devices; both
    /// vanish with its process. `None` where this machine does not allow it.
    pub(crate) fn elsewhere(name: &str) -> Result<Option<Self>, String> {
        let may = rustix::process::geteuid().is_root() && find("ip").is_some() && find("nsenter").is_some();
        if !may
            || !Command::new("unshare")
                .args(["--net", "true"])
                .status()
                .is_ok_and(|status| status.success())
        {
            return Ok(None);
        }
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new("unshare");
        command.arg("--net").arg(program).args(["--serve", name]);
        let mut running = Self::spawn(name, command)?;
        let pid = running.child.id();
        // Each server has a network of four addresses of its own.
        let [_, _, high, low] = ((pid & 0x3fff) << 2).to_be_bytes();
        let [ours, theirs] = [1, 2].map(|host| Ipv4Addr::new(10, 213, high, low + host));
        let (device, pid) = (format!("zoo{pid}"), pid.to_string());
        let inside = ["nsenter", "--target", &pid, "--net"];
        let ip = |before: &[&str], arguments: String| run(before, &format!("ip {arguments}"));
        ip(
            &[],
            format!("link add {device} type veth peer name zoo netns {pid}"),
        )?;
        ip(&[], format!("address add {ours}/30 dev {device}"))?;
        ip(&[], format!("link set {device} up"))?;
        ip(&inside, format!("address add {theirs}/30 dev zoo"))?;
        ip(&inside, "link set zoo up".to_owned())?;
        running.host = theirs;
        Ok(Some(running))
    }

    fn spawn(name: &str, mut command: Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut said = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut said)
            .map_err(|error| error.to_string())?;
        let port = said.trim().parse();
        let running = Self {
            host: Ipv4Addr::LOCALHOST,
            port: port.unwrap_or(0),
            child,
            _directory: None,
        };
        if running.port == 0 {
            return Err(format!("{name} does not say where it listens"));
        }
        Ok(running)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let until = Instant::now() + START_PATIENCE;
        while Instant::now() < until {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended at its start: {status}; {}", self.output()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("does not listen; {}", self.output()))
    }

    fn output(&self) -> String {
        let path = self
            ._directory
            .as_ref()
            .map(|directory| directory.path().join("output"));
        path.and_then(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0");
    listener
        .and_then(|listener| listener.local_addr())
        .map_or(0, |address| address.port())
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    let written = File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    assert!(written.is_ok(), "{}: {written:?}", path.display());
    path
}

/// A file of so many bytes, filled, with a strong ETag of its server's making.
fn write_page(directory: &Path, name: &str, bytes: usize) {
    std::fs::create_dir_all(directory.join("files")).unwrap_or_default();
    write(
        &directory.join("files"),
        name,
        &"what everybody reads\n".repeat(bytes / 21 + 1),
    );
    // Workers may run as another user.
    for path in [directory.to_path_buf(), directory.join("files")] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, open).unwrap_or_default();
    }
}

fn command(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| PathBuf::from(name)))
}

pub(crate) fn highwater(_: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["echo", "--grace", "2s", "--port", &port.to_string()]);
    command
}

pub(crate) fn highwater_broadcast(_: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["broadcast", "--grace", "3s", "--port", &port.to_string()]);
    command
}

pub(crate) fn highwater_framed(directory: &Path, port: u16) -> Command {
    let mut command = highwater(directory, port);
    command.args(["--framing", "length"]);
    command
}

pub(crate) fn highwater_default(_: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["echo", "--port", &port.to_string()]);
    command
}

/// With a send buffer of 64 KB, or with as much as the kernel likes.
fn nginx(directory: &Path, port: u16, settings: &str) -> Command {
    write_page(directory, "large", 16 << 20);
    write_page(directory, "small", 1000);
    let files = directory.join("files");
    let buffer = if settings.contains("keepalive_requests") || settings.contains("auth_basic") {
        ""
    } else {
        "sndbuf=64k"
    };
    let configuration = format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy;\n\
         fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         server {{ listen 127.0.0.1:{port} {buffer}; root {}; {settings} }} }}\n",
        files.display()
    );
    let path = write(directory, "nginx.conf", &configuration);
    let mut nginx = command("nginx");
    nginx
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(path)
        .args(["-e", "stderr"]);
    nginx
}

pub(crate) fn nginx_defended(directory: &Path, port: u16) -> Command {
    nginx(directory, port, "send_timeout 2s; reset_timedout_connection on;")
}

pub(crate) fn nginx_plain_close(directory: &Path, port: u16) -> Command {
    nginx(directory, port, "send_timeout 2s;")
}

pub(crate) fn nginx_default(directory: &Path, port: u16) -> Command {
    nginx(directory, port, "")
}

pub(crate) fn nginx_few_requests(directory: &Path, port: u16) -> Command {
    nginx(
        directory,
        port,
        "keepalive_requests 100; send_timeout 2s; reset_timedout_connection on;",
    )
}

pub(crate) fn nginx_short_idle(directory: &Path, port: u16) -> Command {
    nginx(
        directory,
        port,
        "keepalive_timeout 1s; keepalive_time 3s; send_timeout 2s; reset_timedout_connection on;",
    )
}

pub(crate) fn nginx_login(directory: &Path, port: u16) -> Command {
    nginx(directory, port, "auth_basic zoo; auth_basic_user_file /dev/null;")
}

fn apache(directory: &Path, port: u16, settings: &str) -> Command {
    write_page(directory, "large", 16 << 20);
    let modules = "/usr/lib/apache2/modules";
    let configuration = format!(
        "ServerRoot {0}\nServerName localhost\nPidFile {0}/apache.pid\nDefaultRuntimeDir {0}\n\
         Listen 127.0.0.1:{port}\nErrorLog {0}/error.log\nDocumentRoot {0}/files\n\
         LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
         LoadModule authz_core_module {modules}/mod_authz_core.so\n\
         User www-data\nGroup www-data\nSendBufferSize 65536\n{settings}\n",
        directory.display()
    );
    let path = write(directory, "apache.conf", &configuration);
    let mut apache = command("apache2");
    apache.arg("-f").arg(path).arg("-DFOREGROUND");
    apache
}

pub(crate) fn apache_defended(directory: &Path, port: u16) -> Command {
    apache(
        directory,
        port,
        "Timeout 2\nKeepAliveTimeout 5\nMaxKeepAliveRequests 0",
    )
}

pub(crate) fn apache_default(directory: &Path, port: u16) -> Command {
    apache(directory, port, "KeepAliveTimeout 5")
}

fn lighttpd(directory: &Path, port: u16, settings: &str) -> Command {
    write_page(directory, "large", 16 << 20);
    let configuration = format!(
        "server.document-root = \"{0}/files\"\nserver.port = {port}\nserver.bind = \"127.0.0.1\"\n\
         server.errorlog = \"{0}/error.log\"\n{settings}\n",
        directory.display()
    );
    let path = write(directory, "lighttpd.conf", &configuration);
    let mut lighttpd = command("lighttpd");
    lighttpd.arg("-D").arg("-f").arg(path);
    lighttpd
}

pub(crate) fn lighttpd_defended(directory: &Path, port: u16) -> Command {
    lighttpd(directory, port, "server.max-write-idle = 2")
}

pub(crate) fn lighttpd_default(directory: &Path, port: u16) -> Command {
    lighttpd(directory, port, "")
}

fn redis(directory: &Path, port: u16, settings: &[&str]) -> Command {
    let mut redis = command("redis-server");
    redis
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
        ])
        .arg(directory)
        .args(settings);
    redis
}

pub(crate) fn redis_default(directory: &Path, port: u16) -> Command {
    redis(directory, port, &[])
}

pub(crate) fn redis_with_limit(directory: &Path, port: u16) -> Command {
    redis(
        directory,
        port,
        &["--client-output-buffer-limit", "pubsub 1mb 0 0"],
    )
}

pub(crate) fn redis_without_limit(directory: &Path, port: u16) -> Command {
    redis(directory, port, &["--client-output-buffer-limit", "pubsub 0 0 0"])
}

pub(crate) fn redis_with_password(directory: &Path, port: u16) -> Command {
    redis(directory, port, &["--requirepass", "secret"])
}

fn nats(directory: &Path, port: u16, settings: &str) -> Command {
    let text = format!("listen: 127.0.0.1:{port}\nwrite_deadline: \"2s\"\nmax_pending: 1MB\n{settings}\n");
    let path = write(directory, "nats.conf", &text);
    let mut nats = command("nats-server");
    nats.arg("-c").arg(path);
    nats
}

pub(crate) fn nats_open(directory: &Path, port: u16) -> Command {
    nats(directory, port, "")
}

pub(crate) fn nats_with_login(directory: &Path, port: u16) -> Command {
    nats(directory, port, "authorization { token: \"secret\" }")
}

/// A program for Node.
fn node(directory: &Path, port: u16, program: &str) -> Command {
    let path = write(directory, "server.mjs", program);
    let mut node = command("node");
    node.arg(path).arg(port.to_string());
    node
}

pub(crate) fn node_pipe(directory: &Path, port: u16) -> Command {
    node(
        directory,
        port,
        "import net from 'node:net';\n\
         net.createServer(client => { client.on('error', () => {}); client.pipe(client); })\n\
         .listen(Number(process.argv[2]), '127.0.0.1');\n",
    )
}

pub(crate) fn node_without_pause(directory: &Path, port: u16) -> Command {
    node(
        directory,
        port,
        "import net from 'node:net';\n\
         net.createServer(client => { client.on('error', () => {}); client.on('data', bytes => client.write(bytes)); })\n\
         .listen(Number(process.argv[2]), '127.0.0.1');\n",
    )
}

pub(crate) fn node_file(directory: &Path, port: u16) -> Command {
    write_page(directory, "large", 16 << 20);
    node(
        directory,
        port,
        "import fs from 'node:fs'; import http from 'node:http';\n\
         http.createServer((request, answer) => {\n\
         answer.setHeader('Content-Length', fs.statSync('files/large').size);\n\
         fs.createReadStream('files/large').on('error', () => {}).pipe(answer);\n\
         }).listen(Number(process.argv[2]), '127.0.0.1');\n",
    )
}

pub(crate) fn node_http_anew(directory: &Path, port: u16) -> Command {
    node(
        directory,
        port,
        "import http from 'node:http';\n\
         http.createServer((request, answer) => answer.end(Buffer.alloc(16 << 20, 'x')))\n\
         .listen(Number(process.argv[2]), '127.0.0.1');\n",
    )
}

pub(crate) fn node_http(directory: &Path, port: u16) -> Command {
    node(
        directory,
        port,
        "import http from 'node:http';\n\
         const page = Buffer.alloc(16 << 20, 'x');\n\
         http.createServer((request, answer) => answer.end(page)).listen(Number(process.argv[2]), '127.0.0.1');\n",
    )
}

pub(crate) fn mosquitto(directory: &Path, port: u16) -> Command {
    let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n");
    let path = write(directory, "mosquitto.conf", &text);
    let mut mosquitto = command("mosquitto");
    mosquitto.arg("-c").arg(path);
    mosquitto
}

/// Runs a command, behind the words of another that leads to where it shall run.
fn run(before: &[&str], line: &str) -> Result<(), String> {
    let words: Vec<&str> = before.iter().copied().chain(line.split(' ')).collect();
    let output = Command::new(words[0]).args(&words[1..]).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{line}: {error}")),
    }
}
