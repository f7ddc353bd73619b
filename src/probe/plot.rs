//! The timeline as a picture: when slow clients filled up, when they went, and what healthy ones felt.
//!
//! Three strips over one axis of seconds: answers per second, the longest wait
//! (on a logarithmic axis, as a stall is thousands of times a wait), and one
//! bar for each slow client. Knows only the report; writes one SVG file.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::fast::End;
use super::measurement::{Measurement, SlowClientSeen};
use super::report::Report;

/// Width and height of the picture, in pixels.
const SIZE: (u32, u32) = (960, 640);
/// Bars drawn at most; of more clients an even choice is drawn.
const MOST_BARS: usize = 60;
/// Space for the numbers of the left axis, so that the strips stand above each other.
const LEFT_PIXELS: u32 = 72;
/// Waits below this are drawn on the axis: 10 us.
const LEAST_WAIT_MS: f64 = 0.01;

const CONNECTED: RGBColor = RGBColor(158, 190, 222);
const FULL: RGBColor = RGBColor(226, 150, 60);
const HEALTHY: RGBColor = RGBColor(38, 110, 70);
const WAIT: RGBColor = RGBColor(60, 60, 140);
const RESET: RGBColor = RGBColor(190, 30, 45);

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Strip<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the picture of a report.
///
/// # Errors
///
/// When the file cannot be written; the text names what went wrong.
pub fn plot(report: &Report, file: &Path) -> Result<(), String> {
    draw(report, file).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

fn draw(report: &Report, file: &Path) -> Drawn {
    // The backend only writes when it is done, and hides why it cannot: try the file first.
    std::fs::File::create(file)?;
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{} ({}): {}", report.target, report.protocol, word(report));
    let root = root.titled(&title, ("sans-serif", 20))?;
    let (rate, rest) = root.split_vertically(170);
    let (wait, slow) = rest.split_vertically(170);
    let seen = &report.measured;
    let end = seen.seconds.max(0.1);
    draw_rate(&rate, seen, end)?;
    draw_waits(&wait, seen, end)?;
    draw_slow(&slow, seen, end)?;
    root.present()?;
    Ok(())
}

fn word(report: &Report) -> &'static str {
    use super::verdict::Outcome;
    match report.verdict {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Unknown | Outcome::NotTested => "unknown",
    }
}

/// Where the middle phase begins and ends.
fn mark_phases<'a, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    seen: &Measurement,
    low: f64,
    high: f64,
) -> Drawn
where
    Y: plotters::coord::ranged1d::Ranged<ValueType = f64>,
{
    let Some(during) = seen.healthy.during else {
        return Ok(());
    };
    for at in [during.from, during.from + during.seconds] {
        chart.draw_series(LineSeries::new([(at, low), (at, high)], BLACK.mix(0.3)))?;
    }
    Ok(())
}

fn draw_rate(strip: &Strip<'_>, seen: &Measurement, end: f64) -> Drawn {
    let mut before = 0.0;
    let points: Vec<(f64, f64)> = (seen.timeline.iter())
        .map(|slice| {
            let rate = slice.messages as f64 / (slice.at - before).max(1e-3);
            before = slice.at;
            (slice.at, rate)
        })
        .collect();
    let most = points.iter().map(|point| point.1).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(strip)
        .caption("answers per second that healthy clients get", ("sans-serif", 14))
        .margin_right(16)
        .set_label_area_size(LabelAreaPosition::Left, LEFT_PIXELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 20)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_labels(4)
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(AreaSeries::new(points, 0.0, HEALTHY.mix(0.35)).border_style(HEALTHY))?;
    mark_phases(&mut chart, seen, 0.0, most)
}

fn draw_waits(strip: &Strip<'_>, seen: &Measurement, end: f64) -> Drawn {
    let points: Vec<(f64, f64)> = (seen.timeline.iter())
        .map(|slice| (slice.at, (slice.longest_wait_us / 1e3).max(LEAST_WAIT_MS)))
        .collect();
    let most = points.iter().map(|point| point.1).fold(1.0, f64::max) * 2.0;
    let mut chart = ChartBuilder::on(strip)
        .caption(
            "longest wait of a healthy client, in milliseconds",
            ("sans-serif", 14),
        )
        .margin_right(16)
        .set_label_area_size(LabelAreaPosition::Left, LEFT_PIXELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 20)
        .build_cartesian_2d(0.0..end, (LEAST_WAIT_MS..most).log_scale())?;
    let milliseconds = |wait: &f64| {
        if *wait >= 1.0 {
            format!("{wait:.0}")
        } else {
            format!("{wait}")
        }
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_labels(5)
        .y_label_formatter(&milliseconds)
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(LineSeries::new(points, WAIT.stroke_width(2)))?;
    mark_phases(&mut chart, seen, LEAST_WAIT_MS, most)
}

fn draw_slow(strip: &Strip<'_>, seen: &Measurement, end: f64) -> Drawn {
    let bars = chosen(&seen.slow);
    let rows = bars.len().max(1) as f64;
    let caption = "slow clients: connected (blue), full (orange), reset (red), closed otherwise (black)";
    let mut chart = ChartBuilder::on(strip)
        .caption(caption, ("sans-serif", 14))
        .margin_right(16)
        .set_label_area_size(LabelAreaPosition::Left, LEFT_PIXELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 34)
        .build_cartesian_2d(0.0..end, rows..0.0)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .y_labels(0)
        .x_desc("seconds")
        .draw()?;
    let mut last_kind = None;
    for (row, client) in bars.iter().enumerate() {
        let (top, bottom) = (row as f64 + 0.15, row as f64 + 0.85);
        let ended = client.ended_at.unwrap_or(seen.seconds);
        let full = client.full_at.unwrap_or(ended).min(ended);
        let part = |from: f64, to: f64, colour: RGBColor| {
            Rectangle::new([(from, top), (to, bottom)], colour.filled())
        };
        chart.draw_series([part(client.joined_at, full, CONNECTED), part(full, ended, FULL)])?;
        if let Some(last) = client.end {
            let colour = if last == End::Reset { RESET } else { BLACK };
            chart.draw_series([part(ended, ended + end / 300.0, colour)])?;
        }
        if last_kind != Some(client.kind) {
            last_kind = Some(client.kind);
            let name = format!("{:?}", client.kind).to_lowercase();
            chart.draw_series([Text::new(name, (end * 0.005, top), ("sans-serif", 12))])?;
        }
    }
    mark_phases(&mut chart, seen, 0.0, rows)
}

/// All clients, or an even choice of them.
fn chosen(clients: &[SlowClientSeen]) -> Vec<&SlowClientSeen> {
    let step = clients.len().div_ceil(MOST_BARS).max(1);
    clients
        .iter()
        .filter(|client| client.connected)
        .step_by(step)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_clients_an_even_choice_is_drawn() {
        let client = |port| SlowClientSeen {
            kind: crate::probe::Kind::Stalled,
            local_port: port,
            connected: true,
            joined_at: 0.0,
            first_refused_at: None,
            full_at: None,
            resumed_at: None,
            ended_at: None,
            end: None,
            seconds_to_end: None,
            absorbed_bytes: 0,
            offer_exhausted: false,
            received_bytes: 0,
            intact: None,
            corruption: None,
            complete: false,
        };
        let clients: Vec<_> = (0..601).map(client).collect();
        let bars = chosen(&clients);
        assert!(bars.len() <= MOST_BARS && bars.len() > MOST_BARS / 2);
        assert_eq!(chosen(&clients[..3]).len(), 3);
    }
}
