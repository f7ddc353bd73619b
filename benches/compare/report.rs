//! Tells what was measured: a table on the terminal at once, Markdown and plots
//! when all is done.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::figure::{Figure, ratio};
use crate::generator::Latency;
use crate::load::Work;
use crate::method::Method;
use crate::peer::Workshop;
use crate::plot;
use crate::scenario::{self, Scenario};
use crate::slices::{AGREEMENT, Run};
use crate::standing::Standing;

/// All that is known of one scenario.
struct Chapter {
    scenario: &'static Scenario,
    standings: Vec<Standing>,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// The whole report, as it grows.
pub(crate) struct Report {
    head: String,
    made: Made,
    chapters: Vec<Chapter>,
}

impl Report {
    /// An empty report that knows how it came about.
    pub(crate) fn new(workshop: &Workshop, method: &Method) -> Self {
        Self {
            head: head(workshop),
            made: Made::new(method),
            chapters: Vec::new(),
        }
    }

    /// Adds a run and prints its table.
    pub(crate) fn add_run(&mut self, scenario: &'static Scenario, run: Run) {
        let apart = format!("the two bases differ by {:.1} %", run.disagreement * 100.0);
        let verdict = if run.counts() { "" } else { "NOT COUNTED: " };
        let counts = run.counts();
        let tries = run.tries;
        let standings = merge(Vec::new(), run);
        println!("{verdict}{apart}, try {tries}\n{}", terminal_table(&standings));
        let chapter = self.chapter(scenario);
        if counts {
            merge_standings(&mut chapter.standings, standings);
        } else {
            let names: Vec<&str> = standings.iter().map(|standing| standing.label).collect();
            let limit = AGREEMENT * 100.0;
            let names = names.join(", ");
            chapter.notes.push(format!(
                "Not counted after {tries} tries, as {apart}, more than {limit} %: {names}."
            ));
        }
    }

    /// Adds one figure and prints it.
    pub(crate) fn add_figure(&mut self, scenario: &'static Scenario, figure: Figure) {
        println!("{:20}{:42}{}", figure.label, figure.what, figure.value);
        self.chapter(scenario).figures.push(figure);
    }

    /// Notes that a scenario could not be measured.
    pub(crate) fn failed(&mut self, scenario: &'static Scenario, why: &str) {
        println!("{}: not measured: {why}", scenario.name);
        self.chapter(scenario).notes.push(format!("Not measured: {why}."));
    }

    /// Writes the Markdown file, and the plots in a folder beside it.
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let plots = path.with_extension("");
        let fail = |path: &Path, error| format!("cannot write {}: {error}", path.display());
        fs::create_dir_all(&plots).map_err(|error| fail(&plots, error))?;
        let mut texts = chapters_of(&fs::read_to_string(path).unwrap_or_default());
        for chapter in &self.chapters {
            let name = format!("{}.svg", chapter.scenario.name);
            let has_plot = !chapter.standings.is_empty();
            if has_plot {
                plot::draw(&plots.join(&name), chapter.scenario, &chapter.standings)?;
            }
            let folder = plots.file_name().unwrap_or_default().to_string_lossy();
            let text = chapter.text(has_plot.then(|| format!("{folder}/{name}")), &self.made);
            match texts
                .iter_mut()
                .find(|(known, _)| *known == chapter.scenario.name)
            {
                Some((_, known)) => *known = text,
                None => texts.push((chapter.scenario.name.to_owned(), text)),
            }
        }
        let texts: String = texts.into_iter().map(|(_, text)| text).collect();
        fs::write(path, format!("{}{texts}", self.head)).map_err(|error| fail(path, error))
    }

    fn chapter(&mut self, scenario: &'static Scenario) -> &mut Chapter {
        let place = self
            .chapters
            .iter()
            .position(|chapter| chapter.scenario.name == scenario.name);
        let place = place.unwrap_or_else(|| {
            let chapter = Chapter {
                scenario,
                standings: Vec::new(),
                figures: Vec::new(),
                notes: Vec::new(),
            };
            self.chapters.push(chapter);
            self.chapters.len() - 1
        });
        &mut self.chapters[place]
    }
}

/// The chapters that an earlier report has, by name, but for scenarios that are no more.
fn chapters_of(report: &str) -> Vec<(String, String)> {
    report
        .split("\n## ")
        .skip(1)
        .filter_map(|chapter| {
            let name = chapter.lines().next()?.to_owned();
            scenario::is_known(&name).then(|| (name, format!("\n## {chapter}")))
        })
        .collect()
}

/// The outcomes of a run, those of the same name put together.
fn merge(mut standings: Vec<Standing>, run: Run) -> Vec<Standing> {
    let outcomes = run.outcomes.into_iter().map(|outcome| Standing {
        label: outcome.label,
        work: outcome.work,
        samples: outcome.samples,
        latency: outcome.latency,
        resident_bytes: outcome.resident_bytes,
    });
    merge_standings(&mut standings, outcomes.collect());
    standings
}

fn merge_standings(into: &mut Vec<Standing>, from: Vec<Standing>) {
    for standing in from {
        match into.iter_mut().find(|known| known.label == standing.label) {
            Some(known) => {
                known.samples.extend(standing.samples);
                known.resident_bytes = known.resident_bytes.max(standing.resident_bytes);
                known.latency = known.latency.zip(standing.latency).map(worse);
            }
            None => into.push(standing),
        }
    }
}

/// Of two runs the longer waits: percentiles cannot be averaged.
fn worse((one, other): (Latency, Latency)) -> Latency {
    Latency {
        p50: one.p50.max(other.p50),
        p99: one.p99.max(other.p99),
        p999: one.p999.max(other.p999),
        max: one.max.max(other.max),
    }
}

const COLUMNS: [&str; 10] = [
    "",
    "rate",
    "to base",
    "CPU each",
    "to base",
    "with clients",
    "busy",
    "p50 / p99 / p99.9",
    "longest",
    "RSS",
];

fn row(standing: &Standing) -> [String; 10] {
    let rate = standing.quartiles(|sample| sample.rate).median;
    let cost = standing.quartiles(|sample| sample.cost).median;
    let (rate, cost) = match standing.work {
        Work::Bulk { .. } | Work::Flood => (
            format!("{:.0} MB/s", rate / 1e6),
            format!("{:.0} ns/KiB", cost * 1024.0),
        ),
        Work::Ping { .. } | Work::Crowd { .. } => (format!("{:.0} k/s", rate / 1e3), format!("{cost:.0} ns")),
        Work::Connect { .. } => (format!("{:.1} k/s", rate / 1e3), format!("{:.1} us", cost / 1e3)),
    };
    let (spread, longest) = standing.latency.map_or_else(Default::default, |latency| {
        let [p50, p99, p999] = [latency.p50, latency.p99, latency.p999].map(microseconds);
        (
            format!("{p50} / {p99} / {p999} us"),
            format!("{:.1} ms", latency.max.as_secs_f64() * 1e3),
        )
    });
    [
        standing.label.to_owned(),
        rate,
        ratio(standing.rate_ratio()),
        cost,
        ratio(standing.cost_ratio()),
        ratio(standing.quartiles(|sample| sample.whole_cost_ratio)),
        format!("{:.0} %", standing.quartiles(|sample| sample.busy).median * 100.0),
        spread,
        longest,
        format!("{:.1} MB", standing.resident_bytes as f64 / f64::from(1 << 20)),
    ]
}

fn microseconds(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1e6)
}

fn terminal_table(standings: &[Standing]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(COLUMNS);
    table.add_rows(standings.iter().map(row));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

impl Chapter {
    fn text(&self, plot: Option<String>, made: &Made) -> String {
        let Scenario {
            name, title, goal, ..
        } = self.scenario;
        let mut lines = vec![format!("\n## {name}\n"), format!("{title}. Goal: {goal}.\n")];
        if !self.standings.is_empty() {
            lines.push(format!("| {} |", COLUMNS.join(" | ")));
            lines.push(format!("| --- |{}", " ---: |".repeat(COLUMNS.len() - 1)));
            lines.extend(
                self.standings
                    .iter()
                    .map(|standing| format!("| {} |", row(standing).join(" | "))),
            );
        }
        if !self.figures.is_empty() {
            lines.push("| server | what | measured |\n| --- | --- | ---: |".into());
            lines.extend(
                self.figures
                    .iter()
                    .map(|f| format!("| {} | {} | {} |", f.label, f.what, f.value)),
            );
        }
        lines.extend(self.notes.iter().map(|note| format!("\n{note}")));
        lines.push(format!("\n{}", made.line(name)));
        lines.extend(plot.map(|path| format!("\n![{title}]({path})")));
        lines.join("\n") + "\n"
    }
}

/// The name of this machine's processor.
fn processor() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = processor.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.unwrap_or_default();
    name.trim_start_matches([' ', '\t', ':']).to_owned()
}

/// When and how everything was measured that was measured this time.
struct Made {
    date: String,
    /// The version of highwater, and the processor.
    what: String,
    /// What was typed, but for the scenarios.
    words: String,
    method: String,
}

impl Made {
    fn new(method: &Method) -> Self {
        let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
        let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let mut words = Vec::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(word) = arguments.next() {
            match word.as_str() {
                "--bench" => {}
                "--scenario" => drop(arguments.next()),
                _ => words.push(word),
            }
        }
        Self {
            date: date.unwrap_or_default(),
            what: format!(
                "highwater {} on two cores of {}",
                env!("CARGO_PKG_VERSION"),
                processor()
            ),
            words: words.join(" "),
            method: format!(
                "{cycles} cycles ({bulk} where bulk swings) with slices of {slice} ms, `--seed {seed}`",
                cycles = method.cycles,
                bulk = method.bulk_cycles,
                slice = method.slice.as_millis(),
                seed = method.seed,
            ),
        }
    }

    /// What a chapter says of it, with the command that repeats that chapter.
    fn line(&self, scenario: &str) -> String {
        let Self {
            date,
            what,
            words,
            method,
        } = self;
        format!(
            "Measured on {date}, {what}, by `cargo bench --bench compare -- {words} --scenario {scenario}`: {method}."
        )
    }
}

fn head(workshop: &Workshop) -> String {
    let versions: Vec<String> = workshop
        .versions()
        .iter()
        .map(|(name, version)| format!("| {name} | {version} |"))
        .collect();
    format!(
        "# Benchmarks

Each chapter says when and on which processor it was measured, and how to repeat it.

All servers of a table ran at once on one core, their clients on the other. In each cycle every server had one slice, in random
order, and its ratios to the base were taken inside that cycle. The base, named first, took part twice. A run counts only if both
entries of the base agree within {agree} %.

| column | meaning |
| --- | --- |
| rate, to base | median over all cycles, with the quartiles in brackets |
| CPU each | the server's CPU time per message, KiB or connection; the honest figure if *busy* is below 100 %, since the clients were the limit then |
| with clients | the same ratio with the CPU of the clients, and of the far end of a tunnel. On loopback the sender also does the receiver's TCP work, and a server with bounded buffers does work in its own time that another server leaves to its clients. |
| p50 / p99 / p99.9, longest | latencies of the slowest run |

Every server reads at most 64 KiB at once. Servers that people install keep their own defaults.

| what | version |
| --- | --- |
{versions}
",
        agree = AGREEMENT * 100.0,
        versions = versions.join("\n"),
    )
}
