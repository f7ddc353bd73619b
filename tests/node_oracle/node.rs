//! Node as the oracle: one process that answers traces, line by line.
//!
//! Owns the process and its end. Knows nothing of what the lines say.

use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::trace::Trace;

pub(crate) struct Node {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Such as `v20.20.2`.
    pub(crate) version: String,
}

/// Why there is no oracle to ask.
pub(crate) enum Absent {
    NotInstalled,
    /// An older Node, which judges a write before its sink was tried.
    OtherRule(String),
}

impl Node {
    pub(crate) fn start() -> Result<Self, Absent> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node_oracle/oracle.js");
        let mut process = match Command::new("node")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Absent::NotInstalled),
            other => other.expect("node cannot be started"),
        };
        let mut node = Self {
            input: process.stdin.take(),
            output: BufReader::new(process.stdout.take().expect("its output is a pipe")),
            process,
            version: String::new(),
        };
        let hello = node.line();
        let (version, rule) = hello.split_once(' ').expect("version and rule");
        version.clone_into(&mut node.version);
        if rule != "judges-after-the-sink" {
            return Err(Absent::OtherRule(node.version.clone()));
        }
        Ok(node)
    }

    /// What Node observed after each step of each trace.
    pub(crate) fn run(&mut self, traces: &[Trace]) -> Vec<Vec<String>> {
        let mut input = BufWriter::new(self.input.take().expect("its input is open"));
        let output = &mut self.output;
        let (input, answers) = std::thread::scope(|scope| {
            // Writing waits for Node, which waits for its answers to be read.
            let writer = scope.spawn(move || {
                for trace in traces {
                    writeln!(input, "{trace}").expect("node reads its input");
                }
                input.into_inner().expect("node reads its input")
            });
            let answers = traces.iter().map(|_| answer(&read_line(output))).collect();
            (writer.join().expect("all traces were written"), answers)
        });
        self.input = Some(input);
        answers
    }

    fn line(&mut self) -> String {
        read_line(&mut self.output)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Node ends when its input does.
        self.input = None;
        if std::thread::panicking() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The observations that one line of an answer holds.
pub(crate) fn answer(line: &str) -> Vec<String> {
    line.split(' ')
        .filter(|seen| !seen.is_empty())
        .map(str::to_owned)
        .collect()
}

fn read_line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    let count = output.read_line(&mut line).expect("node writes text");
    assert!(
        count > 0,
        "node ended before it had answered; see its message above"
    );
    line.trim_end().to_owned()
}
