//! One row of the zoo: a server, how it is probed, and what is true of it.
//!
//! The truth follows from what the server does, never from what the prober says of it.

use std::net::TcpListener;

use highwater::probe::FINDINGS;

use crate::programs::Program;

/// What is true of a server, for one finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It is as it should be.
    Good,
    /// It is not.
    Bad,
    /// It is not, but this probe need not be able to tell.
    BadUnseen,
    /// Nobody can tell from what this probe can see: only `unknown` is honest.
    Unknowable,
    /// The probe does not ask.
    Untested,
    /// No rule says what is right.
    Open,
}

impl Truth {
    /// Whether a prober could tell.
    pub(crate) fn is_tellable(self) -> bool {
        matches!(self, Truth::Good | Truth::Bad)
    }

    /// Why this verdict of a finding contradicts the truth.
    pub(crate) fn contradiction(self, verdict: &str) -> Option<&'static str> {
        match (self, verdict) {
            (Truth::Good, "fail") => Some("false fail"),
            (Truth::Bad | Truth::BadUnseen, "pass") => Some("false pass"),
            (Truth::Unknowable, "pass") => Some("pass without evidence"),
            (Truth::Unknowable, "fail") => Some("fail without evidence"),
            (Truth::Good | Truth::Bad | Truth::BadUnseen | Truth::Unknowable, "not_tested") => {
                Some("not tested")
            }
            (Truth::Untested, "pass" | "fail" | "unknown") => Some("tested, though nobody asked"),
            _ => None,
        }
    }
}

/// What runs behind the port.
#[derive(Clone)]
pub(crate) enum Server {
    /// A small server in a process of its own.
    Small(Box<dyn Small>),
    /// A program that may be installed.
    Program(Program),
}

/// A small server: serves a listener until its process ends.
pub(crate) trait Small: Send + Sync {
    fn serve(&self, listener: TcpListener);
    fn boxed(&self) -> Box<dyn Small>;
}

impl Clone for Box<dyn Small> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// Why a probe is refused, where it should be: exit code 2, and one line with this word.
pub(crate) type Refusal = Option<&'static str>;

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) server: Server,
    /// Options of `highwater probe` beside those of the groups.
    pub(crate) options: Vec<&'static str>,
    pub(crate) groups: Groups,
    /// Why what is true by default is true.
    pub(crate) why: &'static str,
    /// What differs from the default, and why.
    overrides: Vec<(&'static str, Truth, &'static str)>,
    pub(crate) refused: Refusal,
    /// What the whole probe comes to, where its options decide, and why.
    pub(crate) verdict: Option<(&'static str, &'static str)>,
    /// It runs in a network namespace of its own.
    pub(crate) is_elsewhere: bool,
    /// Why the prober judges this row wrongly, as long as it does.
    pub(crate) known_wrong: Option<&'static str>,
}

/// How many clients take part.
#[derive(Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) stalled: usize,
    pub(crate) talkers: usize,
    pub(crate) trickle: usize,
    pub(crate) paused: usize,
    pub(crate) steady: usize,
    pub(crate) quiet: usize,
}

impl Row {
    /// Two stalled clients and a paused one; everything as it should be, because of `why`.
    pub(crate) fn new(
        name: &'static str,
        what: &'static str,
        server: Server,
        options: &[&'static str],
        why: &'static str,
    ) -> Self {
        Self {
            name,
            what,
            server,
            options: options.to_vec(),
            groups: Groups {
                stalled: 2,
                talkers: 0,
                trickle: 0,
                paused: 1,
                steady: 0,
                quiet: 0,
            },
            why,
            overrides: Vec::new(),
            refused: None,
            verdict: None,
            is_elsewhere: false,
            known_wrong: None,
        }
    }

    pub(crate) fn small(
        name: &'static str,
        what: &'static str,
        server: impl Small + 'static,
        options: &[&'static str],
        why: &'static str,
    ) -> Self {
        Self::new(name, what, Server::Small(Box::new(server)), options, why)
    }

    pub(crate) fn with_server(mut self, server: impl Small + 'static) -> Self {
        self.server = Server::Small(Box::new(server));
        self
    }

    pub(crate) fn option(mut self, name: &'static str, value: &'static str) -> Self {
        self.options.extend([name, value]);
        self
    }

    pub(crate) fn flag(mut self, name: &'static str) -> Self {
        self.options.push(name);
        self
    }

    pub(crate) fn groups(mut self, set: impl FnOnce(&mut Groups)) -> Self {
        set(&mut self.groups);
        self
    }

    /// This finding is not as it should be, or cannot be told.
    pub(crate) fn but(mut self, finding: &'static str, truth: Truth, reason: &'static str) -> Self {
        assert!(FINDINGS.contains(&finding), "{finding}");
        self.overrides.push((finding, truth, reason));
        self
    }

    /// The server runs in a network namespace of its own, where this machine allows that.
    pub(crate) fn elsewhere(mut self) -> Self {
        self.is_elsewhere = true;
        self
    }

    /// The probe cannot begin.
    pub(crate) fn refused(mut self, word: &'static str) -> Self {
        self.refused = Some(word);
        self
    }

    /// The options decide what the whole probe comes to.
    pub(crate) fn comes_to(mut self, verdict: &'static str, why: &'static str) -> Self {
        self.verdict = Some((verdict, why));
        self
    }

    #[allow(dead_code, reason = "used as long as the prober judges a row wrongly")]
    pub(crate) fn known_wrong(mut self, why: &'static str) -> Self {
        self.known_wrong = Some(why);
        self
    }

    /// What is true, and why.
    pub(crate) fn truth(&self, finding: &str) -> (Truth, &'static str) {
        if let Some(truth) = self.overrides.iter().rev().find(|(name, ..)| *name == finding) {
            return (truth.1, truth.2);
        }
        let groups = self.groups;
        let slow = groups.stalled + groups.talkers + groups.trickle + groups.paused + groups.steady;
        let asked = match finding {
            "stalled-disconnected" | "stalled-in-time" => groups.stalled,
            "talkers-disconnected" => groups.talkers,
            "tricklers-disconnected" => groups.trickle,
            "paused-kept" => groups.paused,
            "steady-kept" => groups.steady,
            "healthy-served" => 1,
            _ => slow,
        };
        if asked == 0 {
            (Truth::Untested, "no such client takes part")
        } else {
            (Truth::Good, self.why)
        }
    }

    /// The command line after `highwater probe HOST:PORT`.
    pub(crate) fn command(&self) -> Vec<String> {
        let mut words: Vec<String> = self.options.iter().map(|word| (*word).to_owned()).collect();
        let groups = [
            ("--stalled", self.groups.stalled),
            ("--quiet", self.groups.quiet),
            ("--talkers", self.groups.talkers),
            ("--trickle", self.groups.trickle),
            ("--paused", self.groups.paused),
            ("--steady", self.groups.steady),
        ];
        for (option, clients) in groups {
            words.extend([option.to_owned(), clients.to_string()]);
        }
        let defaults = [
            ("--fast", "2"),
            ("--baseline", "700ms"),
            ("--within", "4s"),
            ("--pause", "700ms"),
            ("--steady-rate", "256KiB/s"),
        ];
        for (option, value) in defaults {
            if !self.options.contains(&option) {
                words.extend([option.to_owned(), value.to_owned()]);
            }
        }
        words
    }
}
