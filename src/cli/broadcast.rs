//! `highwater broadcast`: its arguments, and the service that they ask for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use highwater::backpressure::Action;
use highwater::limits::broadcast::{HARD_LIMIT_BYTES, MAX_MESSAGE_BYTES};
use highwater::services::Broadcast;
use highwater::services::broadcast::{Settings, SettingsChange};
use highwater::{Limits, Remote};
use log::info;

use super::arguments::ServingArguments;
use super::exit::usage;
use super::options::{ListenArgs, ServingArgs};
use super::parse::Size;
use super::reload::{Follower, Source};
use super::serve::{Serving, serve};

/// The arguments of `highwater broadcast`.
#[derive(Debug, Args)]
#[command(after_help = ACTIONS)]
#[command(mut_args(|arg| match arg.get_id().as_str() {
    "slowest_reader" => arg.help("Refused here: subscribers are judged by --grace alone [default: raises none]"),
    _ => arg,
}))]
pub(crate) struct BroadcastArgs {
    /// Do this with a subscriber that is too slow.
    #[arg(long, value_enum, value_name = "ACTION", default_value_t = SlowAction::Disconnect)]
    pub(crate) slow: SlowAction,
    /// Do that with a slow subscriber of channels that match the pattern,
    /// such as `ticks.*=latest`. May be repeated; the first match wins.
    #[arg(long, value_name = "PATTERN=ACTION")]
    pub(crate) slow_for: Vec<SlowFor>,
    /// Refuse a message that is longer than this, and any other argument.
    #[arg(long, value_name = "SIZE", default_value_t = Size(MAX_MESSAGE_BYTES))]
    pub(crate) max_message: Size,
    /// Demand the password in the first line of this file (AUTH)
    /// [default: no password]
    #[arg(long, value_name = "PATH")]
    pub(crate) password_file: Option<PathBuf>,
    /// Admit clients from other machines without a password.
    #[arg(long)]
    pub(crate) no_protected_mode: bool,
    /// Where to listen.
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// What all servers share.
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
}

const ACTIONS: &str = "\
Actions:
  disconnect   a subscriber that owes the limit for the grace is reset
  drop-oldest  at the high-water mark its oldest messages make room for new ones
  latest       only the newest message of each channel waits for it
  pause        publishers wait for it, for at most the grace; then it is reset

With --shadow, disconnect and pause reset nobody for slowness and tell whom they
would reset; drop-oldest and latest drop as ever.

The hard limit is 32MiB here unless it is given. A client that subscribes to
__highwater__:lost gets `CHANNEL COUNT` there wherever its messages have
a gap.

Example:
  highwater broadcast --slow-for 'ticks.*=latest' --slow-for 'audit=pause'";

/// What to do with a subscriber that is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SlowAction {
    /// Reset it once it owes the limit for the grace.
    Disconnect,
    /// Drop its oldest messages at the high-water mark.
    DropOldest,
    /// Keep only the newest message of each channel for it.
    Latest,
    /// Let publishers wait for it, for at most the grace.
    Pause,
}

impl From<SlowAction> for Action {
    fn from(action: SlowAction) -> Self {
        match action {
            SlowAction::Disconnect => Self::Disconnect,
            SlowAction::DropOldest => Self::DropOldest,
            SlowAction::Latest => Self::Latest,
            SlowAction::Pause => Self::Pause,
        }
    }
}

/// The action for channels that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlowFor {
    pattern: String,
    action: Action,
}

impl FromStr for SlowFor {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        // A pattern may contain `=`, and no action does.
        let Some((pattern, action)) = typed.rsplit_once('=').filter(|(pattern, _)| !pattern.is_empty())
        else {
            return Err(format!(
                "`{typed}` is not PATTERN=ACTION: write it like 'ticks.*=latest'"
            ));
        };
        let action =
            Action::from_str(action).map_err(|error| format!("`{action}` is not an action: {error}"))?;
        Ok(Self {
            pattern: pattern.to_owned(),
            action,
        })
    }
}

impl BroadcastArgs {
    /// What subscribers are judged by, without the password.
    fn settings(&self, limits: &Limits) -> Settings {
        let rules = self.slow_for.iter();
        Settings {
            max_message_bytes: self.max_message.0,
            default_action: self.slow.into(),
            rules: rules
                .map(|rule| (rule.pattern.clone().into_bytes(), rule.action))
                .collect(),
            is_protected: !self.no_protected_mode,
            ..Settings::new(limits)
        }
    }
}

impl ServingArguments for BroadcastArgs {
    const SUBCOMMAND: &'static str = "broadcast";

    fn shared(&self) -> (&ListenArgs, &ServingArgs) {
        (&self.listen, &self.serving)
    }

    /// The limits that subscribers are judged by.
    fn limits(&self, shared: Limits) -> Limits {
        Limits {
            hard_limit_bytes: shared.hard_limit_bytes.or(Some(HARD_LIMIT_BYTES)),
            ..shared
        }
    }

    /// A publisher is not paused for a slow subscriber, whose queue may so
    /// reach a limit above the mark.
    fn contradiction(&self, _: &Limits) -> Option<String> {
        let sentence = if self.serving.slowest_reader.is_some() {
            "--slowest-reader is not for broadcast, whose subscribers are judged by --grace alone: leave it out, and \
             make --grace longer"
        } else if self.max_message.0 == 0 {
            "--max-message 0 would refuse every command: give it at least 1, such as 1MiB"
        } else {
            return None;
        };
        Some(sentence.to_owned())
    }

    fn engine_limits(&self, limits: Limits) -> Limits {
        Broadcast::engine_limits(&limits)
    }
}

/// Serves as the arguments ask.
pub(crate) fn run(args: BroadcastArgs, source: Source) -> ExitCode {
    let server = Server::new(args).unwrap_or_else(|sentence| usage(&sentence));
    serve(server, source)
}

fn read_password(path: &Path) -> Result<Vec<u8>, String> {
    let refuse = |why: &str| {
        format!(
            "--password-file {}: {why}; its first line must be the password",
            path.display()
        )
    };
    let content = std::fs::read(path).map_err(|error| refuse(&error.to_string()))?;
    let line = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let password = line.strip_suffix(b"\r").unwrap_or(line);
    if password.is_empty() {
        return Err(refuse("it is empty"));
    }
    Ok(password.to_vec())
}

struct Server {
    args: BroadcastArgs,
    settings: Settings,
    change: SettingsChange,
}

impl Server {
    fn new(args: BroadcastArgs) -> Result<Self, String> {
        let limits = args.checked_limits()?;
        let settings = Settings {
            password: args.password_file.as_deref().map(read_password).transpose()?,
            ..args.settings(&limits)
        };
        Ok(Self {
            args,
            settings,
            change: SettingsChange::default(),
        })
    }
}

impl Serving for Server {
    type Arguments = BroadcastArgs;
    type Service = Broadcast;
    const DONE: &'static str = "sent";

    fn arguments(&self) -> &BroadcastArgs {
        &self.args
    }

    fn follower(&self) -> Follower<BroadcastArgs> {
        let change = self.change.clone();
        Box::new(move |args| {
            let settings = args.settings(&args.limits(args.serving.limits()));
            log_settings(&settings);
            change.leave(settings);
        })
    }

    fn service(self, _: Remote) -> Broadcast {
        log_settings(&self.settings);
        Broadcast::new(self.settings).following(self.change)
    }
}

/// Writes by what subscribers are judged.
fn log_settings(settings: &Settings) {
    let or_none = |bytes: usize| match bytes {
        0 => "none".to_owned(),
        bytes => Size(bytes).to_string(),
    };
    info!(
        "subscribers: {}, high-water mark {}, limit {}, grace {:?}, drain timeout {:?}, hard limit {}, longest message {}",
        settings.default_action,
        Size(settings.high_water_mark_bytes),
        or_none(settings.limit_bytes),
        settings.grace,
        settings.drain_timeout,
        or_none(settings.hard_limit_bytes),
        Size(settings.max_message_bytes),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BroadcastArgs,
    }

    fn broadcast(arguments: &[&str]) -> Result<BroadcastArgs, String> {
        let line = Line::try_parse_from(["broadcast"].iter().chain(arguments));
        line.map(|line| line.args).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn rules_are_kept_in_the_order_in_which_they_are_given() {
        let args = broadcast(&[
            "--slow=pause",
            "--slow-for=a=b*=latest",
            "--slow-for",
            "*=drop-oldest",
        ])
        .unwrap();
        let settings = args.settings(&args.checked_limits().unwrap());
        assert_eq!(settings.default_action, Action::Pause);
        assert_eq!(settings.rules[0], (b"a=b*".to_vec(), Action::Latest));
        assert_eq!(settings.action_for(b"a=bc"), Action::Latest);
        assert_eq!(settings.action_for(b"x"), Action::DropOldest);
        assert_eq!(settings.hard_limit_bytes, 32 << 20);
    }

    #[test]
    fn wrong_rules_are_named_with_what_would_be_right() {
        assert!(
            broadcast(&["--slow-for=ticks"])
                .unwrap_err()
                .contains("'ticks.*=latest'")
        );
        assert!(
            broadcast(&["--slow-for=a=b"])
                .unwrap_err()
                .contains("drop-oldest")
        );
        assert!(broadcast(&["--slow=never"]).is_err());
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file_and_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "secret \r\nmore\n").unwrap();
        assert_eq!(read_password(&path).unwrap(), b"secret ");
        std::fs::write(&path, "\nsecret\n").unwrap();
        assert!(read_password(&path).unwrap_err().contains("it is empty"));
        let missing = read_password(&directory.path().join("none")).unwrap_err();
        assert!(missing.contains("--password-file"), "{missing}");
    }
}
