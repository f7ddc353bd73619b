//! `highwater serve DIR`: its arguments, and the service that they ask for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use highwater::services::files::AccessLogWriter;
use highwater::services::{Files, FilesConfig, Folder, files};
use highwater::{Limits, Remote};

use super::arguments::ServingArguments;
use super::exit::usage;
use super::log::RotatedFile;
use super::options::{ListenArgs, ServingArgs};
use super::parse::Time;
use super::reload::Source;
use super::sentences;
use super::serve::{Serving, serve};

/// The grace of readers of files, who stop for a while on purpose.
const GRACE: &str = "60s";

/// Stands for no time-out: nobody waits for a hundred years.
const NO_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The arguments of `highwater serve`.
#[derive(Debug, Args)]
#[command(mut_args(|arg| if arg.get_id() == "grace" {
    arg.default_value(GRACE).help("Disconnect a client that acknowledges nothing of what it is owed for this long")
} else if arg.get_id() == "drain_timeout" {
    arg.help("Disconnect a client whose queue has not been empty for this long [default: never]")
} else {
    arg
}))]
pub(crate) struct ServeArgs {
    /// Serve the files beneath this folder, and nothing outside it.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// List folders that have no index.html.
    #[arg(long)]
    pub(crate) listing: bool,
    /// Serve names that begin with a dot.
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Send FILE.br, FILE.zst or FILE.gz instead of FILE to clients that accept
    /// it.
    #[arg(long)]
    pub(crate) precompressed: bool,
    /// Add this field to each answer, such as `Cache-Control: max-age=60`. May
    /// be given several times.
    #[arg(long, value_name = "NAME: VALUE", value_parser = field)]
    pub(crate) header: Vec<(String, String)>,
    /// Append a line for each answer to this file, in the combined format, with
    /// the bytes that arrived and how the answer ended. SIGHUP and SIGUSR1 open
    /// it anew.
    #[arg(long, value_name = "PATH")]
    pub(crate) access_log: Option<PathBuf>,
    /// Answer 408 if the head of a request is not there within this time.
    #[arg(long, value_name = "TIME", default_value_t = Time(files::REQUEST_TIMEOUT))]
    pub(crate) request_timeout: Time,
    /// Close a connection that asks for nothing for this long.
    #[arg(long, value_name = "TIME", default_value_t = Time(files::IDLE_TIMEOUT))]
    pub(crate) idle_timeout: Time,
    /// Where to listen.
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// What all servers share.
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
}

/// Fields that say what an answer is: another value would be a lie.
const WRITTEN_BY_SERVER: [&str; 12] = [
    "accept-ranges",
    "allow",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "location",
    "transfer-encoding",
];

/// A field as it is typed, `Name: value`.
fn field(typed: &str) -> Result<(String, String), String> {
    let hint = "write it as `Name: value`, such as `Cache-Control: max-age=60`";
    let (name, value) = typed.split_once(':').ok_or(hint)?;
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        return Err(format!("`{name}` is no name of a field; {hint}"));
    }
    if value.chars().any(char::is_control) {
        return Err("a value has no line ends and no control characters".into());
    }
    if WRITTEN_BY_SERVER.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(format!("{name} is written by the server itself"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

impl ServingArguments for ServeArgs {
    const SUBCOMMAND: &'static str = "serve";

    fn shared(&self) -> (&ListenArgs, &ServingArgs) {
        (&self.listen, &self.serving)
    }

    fn limits(&self, shared: Limits) -> Limits {
        Limits {
            drain_timeout: Some(shared.drain_timeout.unwrap_or(NO_TIMEOUT)),
            idle_timeout: Some(self.idle_timeout.0),
            ..shared
        }
    }

    fn contradiction(&self, limits: &Limits) -> Option<String> {
        let is_zero = self.request_timeout.0.is_zero();
        let of_requests = || {
            "--request-timeout 0 would close every connection at once: give it at least 1ms, such as 10s"
                .to_owned()
        };
        is_zero
            .then(of_requests)
            .or_else(|| sentences::of_unreachable_limit(limits))
    }
}

/// Serves as the arguments ask.
pub(crate) fn run(args: ServeArgs, source: Source) -> ExitCode {
    if let Err(sentence) = args.checked_limits() {
        usage(&sentence);
    }
    let folder = Folder::open(&args.folder).unwrap_or_else(|error| {
        usage(&format!(
            "{}: {error}; name a folder that can be read",
            args.folder.display()
        ))
    });
    let open = |path: &PathBuf| -> Box<dyn AccessLogWriter> {
        let file = RotatedFile::open(path);
        Box::new(file.unwrap_or_else(|error| usage(&format!("--access-log {}: {error}", path.display()))))
    };
    let config = FilesConfig {
        lists: args.listing,
        shows_hidden: args.hidden,
        precompressed: args.precompressed,
        fields: args.header.clone(),
        access_log: args.access_log.as_ref().map(open),
        request_timeout: args.request_timeout.0,
        ..FilesConfig::new(folder)
    };
    serve(Configured { args, config }, source)
}

struct Configured {
    args: ServeArgs,
    config: FilesConfig,
}

impl Serving for Configured {
    type Arguments = ServeArgs;
    type Service = Files;
    const DONE: &'static str = "sent";

    fn arguments(&self) -> &ServeArgs {
        &self.args
    }

    fn service(self, remote: Remote) -> Files {
        Files::new(self.config, remote).unwrap_or_else(|error| {
            eprintln!("error: the threads that read files cannot be started: {error}");
            std::process::exit(1);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn limits(arguments: &[&str]) -> Limits {
        let args = Line::parse_from(["serve", "."].iter().chain(arguments)).args;
        let shared = args.serving.limits();
        args.limits(shared)
    }

    #[test]
    fn readers_of_files_have_a_minute_and_no_drain_timeout_unless_asked() {
        let defaults = limits(&[]);
        assert_eq!(defaults.grace.as_secs(), 60);
        assert_eq!(defaults.drain_timeout(), NO_TIMEOUT);
        assert_eq!(defaults.check(), Ok(()));
        let asked = limits(&["--grace=5s", "--drain-timeout=1h"]);
        assert_eq!(
            (asked.grace.as_secs(), asked.drain_timeout().as_secs()),
            (5, 3600)
        );
    }

    #[test]
    fn a_field_is_name_and_value_and_nothing_that_the_server_writes() {
        assert_eq!(field("X-A: b: c").unwrap(), ("X-A".into(), "b: c".into()));
        for typed in ["X-A", ": b", "X A: b", "X: a\r\nY: b", "Content-Length: 1"] {
            assert!(field(typed).is_err(), "{typed:?}");
        }
    }
}
