//! Who takes part: how each server is built, started, and named.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::launch;
use crate::server::{Ready, Server, free_port};

/// A server that can take part.
struct Peer {
    name: &'static str,
    make: Make,
    start: Start,
}

/// Where its program comes from.
enum Make {
    /// One C file, with the libraries it is linked to.
    C(&'static str, &'static [&'static str]),
    /// One Go file.
    Go(&'static str),
    /// The cargo package beside the other peers.
    Tokio,
    /// A script in the peers' folder, and what runs it.
    Script(&'static str, &'static str),
    /// Installed; the argument shows its version.
    Installed(&'static str, &'static str),
    /// The one that all this is about.
    Highwater,
}

/// What its command line looks like.
enum Start {
    /// These words; `TO` stands for the far end of a tunnel.
    Words(&'static [&'static str]),
    /// These words, for a server that does not say where it listens; `PORT`
    /// stands for a free one.
    AtPort(&'static [&'static str]),
    Haproxy {
        splices: bool,
    },
    Nginx,
    Socat,
}

/// All that can take part, by the name that scenarios use.
const PEERS: &[Peer] = &[
    Peer {
        name: "highwater",
        make: Make::Highwater,
        start: Start::Words(&["echo", "--port", "0"]),
    },
    Peer {
        name: "highwater-tunnel",
        make: Make::Highwater,
        start: Start::Words(&["tunnel", "--port", "0", "--to", "TO"]),
    },
    Peer {
        name: "highwater-copies",
        make: Make::Highwater,
        start: Start::Words(&["tunnel", "--port", "0", "--to", "TO", "--splice-from", "0"]),
    },
    Peer {
        name: "floor",
        make: Make::C("floor_echo", &[]),
        start: Start::Words(&["0"]),
    },
    Peer {
        name: "floor-deadlines",
        make: Make::C("floor_deadlines", &[]),
        start: Start::Words(&["0", "5"]),
    },
    Peer {
        name: "floor-tunnel",
        make: Make::C("floor_tunnel", &[]),
        start: Start::Words(&["0", "TO"]),
    },
    Peer {
        name: "floor-splice",
        make: Make::C("floor_tunnel", &[]),
        start: Start::Words(&["0", "TO", "splice"]),
    },
    Peer {
        name: "libevent",
        make: Make::C("libevent_echo", &["-levent_core"]),
        start: Start::Words(&["0"]),
    },
    Peer {
        name: "libuv",
        make: Make::C("libuv_echo", &["-luv"]),
        start: Start::Words(&["0"]),
    },
    Peer {
        name: "tokio",
        make: Make::Tokio,
        start: Start::Words(&["current_thread", "0"]),
    },
    Peer {
        name: "tokio-multi",
        make: Make::Tokio,
        start: Start::Words(&["multi_thread", "0"]),
    },
    Peer {
        name: "tokio-tunnel",
        make: Make::Tokio,
        start: Start::Words(&["current_thread", "0", "TO"]),
    },
    Peer {
        name: "go",
        make: Make::Go("echo.go"),
        start: Start::Words(&["0"]),
    },
    Peer {
        name: "node",
        make: Make::Script("node", "echo.mjs"),
        start: Start::Words(&["0"]),
    },
    Peer {
        name: "select",
        make: Make::Script("python3", "select_tunnel.py"),
        start: Start::Words(&["0", "TO"]),
    },
    Peer {
        name: "highwater-broadcast",
        make: Make::Highwater,
        start: Start::Words(&["broadcast", "--port", "0"]),
    },
    Peer {
        name: "floor-fanout",
        make: Make::C("floor_fanout", &[]),
        start: Start::Words(&["0"]),
    },
    Peer {
        name: "redis",
        make: Make::Installed("redis-server", "--version"),
        start: Start::AtPort(&["--port", "PORT", "--save", "", "--appendonly", "no"]),
    },
    Peer {
        name: "nats",
        make: Make::Installed("nats-server", "--version"),
        start: Start::AtPort(&["--addr", "127.0.0.1", "--port", "PORT"]),
    },
    Peer {
        name: "haproxy",
        make: Make::Installed("haproxy", "-v"),
        start: Start::Haproxy { splices: false },
    },
    Peer {
        name: "haproxy-splice",
        make: Make::Installed("haproxy", "-v"),
        start: Start::Haproxy { splices: true },
    },
    Peer {
        name: "nginx",
        make: Make::Installed("nginx", "-v"),
        start: Start::Nginx,
    },
    Peer {
        name: "socat",
        make: Make::Installed("socat", "-V"),
        start: Start::Socat,
    },
];

/// Peers that take part in another build too, and how that is called.
const BASELINES: &[(&str, &str)] = &[
    ("highwater", "baseline"),
    ("highwater-tunnel", "baseline-tunnel"),
    ("highwater-copies", "baseline-copies"),
    ("highwater-broadcast", "baseline-broadcast"),
];

/// The same peer in another build of highwater.
pub(crate) fn baseline_of(name: &str) -> Option<&'static str> {
    let pair = BASELINES.iter().find(|(of, _)| *of == name);
    pair.map(|(_, baseline)| *baseline)
}

/// The peer of this name, or the one that this is another build of.
fn peer_of(name: &str) -> Option<&'static Peer> {
    let pair = BASELINES.iter().find(|(_, baseline)| *baseline == name);
    let name = pair.map_or(name, |(of, _)| of);
    PEERS.iter().find(|peer| peer.name == name)
}

/// The built programs, and the folder for what they write.
pub(crate) struct Workshop {
    folder: PathBuf,
    programs: BTreeMap<&'static str, PathBuf>,
    versions: BTreeMap<String, String>,
}

impl Workshop {
    /// Builds every peer that can be built here; a line for each that cannot.
    /// `baseline` is another build of highwater, which does not take part
    /// without it.
    pub(crate) fn build(highwater: &Path, baseline: Option<&Path>) -> Result<Self, String> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare");
        fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let mut workshop = Self {
            folder,
            programs: BTreeMap::new(),
            versions: BTreeMap::new(),
        };
        let mut reasons = BTreeMap::new();
        let peers = PEERS.iter().map(|peer| (peer.name, &peer.make, highwater));
        let others = baseline.iter().flat_map(|&program| {
            BASELINES
                .iter()
                .map(move |&(_, name)| (name, &Make::Highwater, program))
        });
        for (name, make, ours) in peers.chain(others) {
            match workshop.make(make, ours) {
                Ok(program) => drop(workshop.programs.insert(name, program)),
                Err(reason) => drop(reasons.insert(name, reason)),
            }
        }
        for (name, reason) in reasons {
            println!("without {name}: {reason}");
        }
        workshop.note_versions();
        Ok(workshop)
    }

    /// True when the peer of this name can be started.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.programs.contains_key(name)
    }

    /// Versions of all that is compared, by name.
    pub(crate) fn versions(&self) -> &BTreeMap<String, String> {
        &self.versions
    }

    /// Starts a peer with further arguments; `to` is where a tunnel leads, and
    /// `label` tells its files from those of another one of its kind.
    pub(crate) fn start(
        &self,
        name: &str,
        extra: &[&str],
        to: SocketAddr,
        label: &str,
    ) -> Result<Server, String> {
        self.start_under(&[], name, extra, to, label)
    }

    /// The program of a peer that is here.
    pub(crate) fn program(&self, name: &str) -> Option<&Path> {
        self.programs.get(name).map(PathBuf::as_path)
    }

    /// The same under a tool, which is named with its arguments.
    pub(crate) fn start_under(
        &self,
        tool: &[&str],
        name: &str,
        extra: &[&str],
        to: SocketAddr,
        label: &str,
    ) -> Result<Server, String> {
        self.start_on(launch::SERVER_CORE, tool, name, extra, to, label)
    }

    /// The same on a core of one's choice.
    pub(crate) fn start_on(
        &self,
        core: usize,
        tool: &[&str],
        name: &str,
        extra: &[&str],
        to: SocketAddr,
        label: &str,
    ) -> Result<Server, String> {
        let (Some(peer), Some(program)) = (peer_of(name), self.programs.get(name)) else {
            return Err(format!("{name} is not here"));
        };
        let label = label.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let (line, ready) = self.command_line(&peer.start, to, &label)?;
        let mut words: Vec<String> = tool.iter().map(|word| (*word).to_owned()).collect();
        if let Make::Script(interpreter, _) = peer.make {
            words.push(interpreter.to_owned());
        }
        words.push(program.to_string_lossy().into_owned());
        words.extend(line);
        words.extend(extra.iter().map(|word| (*word).to_owned()));
        Server::start(core, &words, ready, self.folder.join(format!("{label}.log")))
    }

    fn command_line(
        &self,
        start: &Start,
        to: SocketAddr,
        label: &str,
    ) -> Result<(Vec<String>, Ready), String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        if let Start::Words(line) = start {
            let line = line
                .iter()
                .map(|word| word.replace("TO", &to.to_string()))
                .collect();
            return Ok((line, Ready::Says));
        }
        let port = free_port()?;
        if let Start::AtPort(line) = start {
            let line = line.iter().map(|word| word.replace("PORT", &port.to_string()));
            return Ok((line.collect(), Ready::Accepts(port)));
        }
        let configuration = self.folder.join(format!("{label}.conf"));
        let path = configuration.to_string_lossy().into_owned();
        let (text, line) = match start {
            Start::Haproxy { splices } => (
                haproxy_configuration(port, to, *splices),
                words(&["-db", "-f", &path]),
            ),
            Start::Nginx => (
                nginx_configuration(port, to, &self.folder),
                words(&["-c", &path, "-e", "stderr"]),
            ),
            _ => {
                let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=4096");
                (String::new(), vec![listen, format!("TCP:{to},nodelay")])
            }
        };
        fs::write(&configuration, text).map_err(|error| format!("cannot write {path}: {error}"))?;
        Ok((line, Ready::Accepts(port)))
    }

    fn make(&self, make: &Make, ours: &Path) -> Result<PathBuf, String> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match make {
            Make::Highwater => ours
                .is_file()
                .then(|| ours.to_owned())
                .ok_or_else(|| format!("{} is not built", ours.display())),
            Make::C(name, libraries) => {
                let built = self.folder.join(name);
                let mut words = vec![
                    "-O2".to_owned(),
                    "-o".into(),
                    text(&built),
                    text(&sources.join(format!("{name}.c"))),
                ];
                words.extend(libraries.iter().map(|library| (*library).to_owned()));
                run(Command::new("gcc").args(words)).map(|_| built)
            }
            Make::Go(name) => {
                let built = self.folder.join("go_echo");
                let words = [
                    "build".to_owned(),
                    "-o".into(),
                    text(&built),
                    text(&sources.join(name)),
                ];
                run(Command::new("go").args(words).env("GO111MODULE", "off")).map(|_| built)
            }
            Make::Tokio => {
                let target = self.folder.join("tokio");
                let mut cargo = Command::new(env!("CARGO"));
                cargo.args(["build", "--release", "--quiet", "--locked", "--manifest-path"]);
                cargo
                    .arg(sources.join("tokio/Cargo.toml"))
                    .arg("--target-dir")
                    .arg(&target);
                run(&mut cargo).map(|_| target.join("release/tokio-peer"))
            }
            Make::Script(interpreter, name) => {
                run(Command::new(interpreter).arg("--version")).map(|_| sources.join(name))
            }
            Make::Installed(program, version) => {
                // Daemons are where not everybody's path leads.
                let path = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
                let found = path
                    .iter()
                    .map(|folder| Path::new(folder).join(program))
                    .find(|path| path.is_file());
                let found = found.ok_or_else(|| format!("{program} is not installed"))?;
                run(Command::new(&found).arg(version)).map(|_| found)
            }
        }
    }

    fn note_versions(&mut self) {
        const QUESTIONS: &[(&str, &[&str])] = &[
            ("gcc", &["gcc", "--version"]),
            ("Go", &["go", "version"]),
            ("haproxy", &["/usr/sbin/haproxy", "-v"]),
            ("nginx", &["/usr/sbin/nginx", "-v"]),
            ("redis", &["/usr/bin/redis-server", "--version"]),
            ("nats", &["/usr/sbin/nats-server", "--version"]),
            ("socat", &["socat", "-V"]),
            ("Node", &["node", "--version"]),
            ("Python", &["python3", "--version"]),
            (
                "libevent",
                &["dpkg-query", "-W", "-f", "${Version}", "libevent-dev"],
            ),
            ("libuv", &["dpkg-query", "-W", "-f", "${Version}", "libuv1-dev"]),
            ("rustc", &["rustc", "--version"]),
            ("Linux", &["uname", "-r"]),
        ];
        for (name, words) in QUESTIONS {
            if let Ok(output) = run(Command::new(words[0]).args(&words[1..])) {
                let line = output
                    .lines()
                    .find(|line| line.contains(|c: char| c.is_ascii_digit()));
                self.versions
                    .insert((*name).to_owned(), line.unwrap_or_default().trim().to_owned());
            }
        }
        let lock = include_str!("../peers/tokio/Cargo.lock");
        let tokio = lock
            .split("name = \"tokio\"\nversion = \"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        self.versions
            .insert("tokio".into(), tokio.unwrap_or_default().to_owned());
        self.versions
            .insert("highwater".into(), env!("CARGO_PKG_VERSION").to_owned());
    }
}

/// Runs a command to its end; its output, or the first line of its complaint.
fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!(
            "{name}: {}",
            complaint.lines().next().unwrap_or("failed without a word")
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &complaint)
}

fn haproxy_configuration(port: u16, to: SocketAddr, splices: bool) -> String {
    let splice = if splices {
        "option splice-request\n    option splice-response"
    } else {
        "no option splice-auto"
    };
    format!(
        "global
    nbthread 1
    maxconn 5000
defaults
    mode tcp
    {splice}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen tunnel
    bind 127.0.0.1:{port} backlog 4096
    server far {to}
"
    )
}

fn nginx_configuration(port: u16, to: SocketAddr, folder: &Path) -> String {
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = if Path::new(module).exists() {
        format!("load_module {module};\n")
    } else {
        String::new()
    };
    format!(
        "{load}daemon off;
master_process off;
pid {folder}/nginx-{port}.pid;
error_log stderr warn;
events {{ worker_connections 8000; }}
stream {{
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass {to};
        proxy_timeout 1h;
    }}
}}
",
        folder = folder.display()
    )
}
