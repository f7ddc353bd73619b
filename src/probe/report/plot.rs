//! The timeline as a picture: when slow clients filled up, when they went, and what healthy ones felt.
//!
//! Three strips over one axis of seconds: answers per second, the longest wait
//! (on a logarithmic axis, as a stall is thousands of times a wait), and one
//! bar for each slow client, whose colour says what it does and whose end says
//! how it went. Knows only the report; writes one SVG file.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::probe::kind::Disconnect;
use crate::probe::kind::SlowKind;
use crate::probe::report::Report;
use crate::probe::report::measurement::{Measurement, Slice, SlowClientSeen};

/// Width and height of the picture, in pixels.
const SIZE: (u32, u32) = (960, 640);
/// Bars drawn at most; of more clients an even choice is drawn.
const MOST_BARS: usize = 60;
/// Space for the numbers of the left axis, so that the strips stand above each other.
const LEFT_PIXELS: u32 = 72;
/// Waits below this are drawn on the axis: 10 us.
const LEAST_WAIT_MS: f64 = 0.01;

/// Height of the line that explains the colours.
const LEGEND_PIXELS: u32 = 22;

const FILLING: RGBColor = RGBColor(158, 190, 222);
const FULL: RGBColor = RGBColor(226, 150, 60);
const READING_SLOWLY: RGBColor = RGBColor(238, 212, 130);
const READING: RGBColor = RGBColor(110, 180, 140);
const HEALTHY: RGBColor = RGBColor(38, 110, 70);
const WAIT: RGBColor = RGBColor(60, 60, 140);
const RESET: RGBColor = RGBColor(190, 30, 45);
const CLOSED: RGBColor = BLACK;

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Strip<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the picture of a report.
///
/// # Errors
///
/// When the file cannot be written; the text names what went wrong.
pub fn plot(report: &Report, file: &Path) -> Result<(), String> {
    std::fs::write(file, svg(report)?).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// The picture of a report, as the text of an SVG file.
///
/// # Errors
///
/// When the drawing fails; the text names why.
pub fn svg(report: &Report) -> Result<String, String> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| format!("cannot draw the timeline: {error}"))?;
    Ok(svg)
}

fn draw(report: &Report, svg: &mut String) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{} ({}): {}", report.target, report.protocol, word(report));
    let root = root.titled(&title, ("sans-serif", 20))?;
    let (rate, rest) = root.split_vertically(170);
    let (wait, rest) = rest.split_vertically(160);
    let (legend, slow) = rest.split_vertically(LEGEND_PIXELS);
    let seen = &report.measured;
    let end = seen.seconds.max(0.1);
    draw_rate(&rate, seen, end)?;
    draw_waits(&wait, seen, end)?;
    draw_legend(&legend)?;
    draw_slow(&slow, seen, end)?;
    root.present()?;
    Ok(())
}

fn word(report: &Report) -> &'static str {
    use crate::probe::report::verdict::finding::Outcome;
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

/// The slices in which the healthy clients were at work, each with its length.
fn at_work(seen: &Measurement) -> impl Iterator<Item = (&Slice, f64)> {
    let healthy = &seen.healthy;
    let last = healthy.after.or(healthy.during).or(healthy.before);
    let end = last.map_or(0.0, |phase| phase.from + phase.seconds);
    let starts = std::iter::once(0.0).chain(seen.timeline.iter().map(|slice| slice.at));
    (seen.timeline.iter().zip(starts))
        .filter(move |(slice, _)| slice.at <= end)
        .map(|(slice, start)| (slice, slice.at - start))
}

fn whole(number: &f64) -> String {
    format!("{number:.0}")
}

fn draw_rate(strip: &Strip<'_>, seen: &Measurement, end: f64) -> Drawn {
    let points: Vec<(f64, f64)> = at_work(seen)
        .map(|(slice, seconds)| (slice.at, slice.messages as f64 / seconds.max(1e-3)))
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
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(AreaSeries::new(points, 0.0, HEALTHY.mix(0.35)).border_style(HEALTHY))?;
    name_phases(&chart, seen, most)?;
    mark_phases(&mut chart, seen, 0.0, most)
}

fn name_phases<'a>(
    chart: &ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    seen: &Measurement,
    top: f64,
) -> Drawn {
    let healthy = &seen.healthy;
    for (name, phase) in [
        ("alone", healthy.before),
        ("with slow clients", healthy.during),
        ("afterwards", healthy.after),
    ] {
        if let Some(phase) = phase {
            write(chart, (phase.from, top), (4, 2), name, BLACK.mix(0.7))?;
        }
    }
    Ok(())
}

/// Text at a point of the chart and so many pixels from it.
fn write<'a, Y>(
    chart: &ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    at: (f64, f64),
    offset: (i32, i32),
    text: &str,
    colour: RGBAColor,
) -> Drawn
where
    Y: plotters::coord::ranged1d::Ranged<ValueType = f64>,
{
    let style = ("sans-serif", 12).into_font().color(&colour);
    let text = EmptyElement::at(at) + Text::new(text.to_owned(), offset, style);
    chart.plotting_area().draw(&text)?;
    Ok(())
}

fn draw_waits(strip: &Strip<'_>, seen: &Measurement, end: f64) -> Drawn {
    let points: Vec<(f64, f64)> = at_work(seen)
        .map(|(slice, _)| (slice.at, (slice.longest_wait_us / 1e3).max(LEAST_WAIT_MS)))
        .collect();
    let most = points.iter().map(|point| point.1).fold(1.0, f64::max) * 2.0;
    let least = points.iter().map(|point| point.1).fold(1.0, f64::min);
    // A whole power of ten, so that the axis begins with a number.
    let least = 10f64.powf(least.log10().floor());
    let mut chart = ChartBuilder::on(strip)
        .caption(
            "longest wait of a healthy client, in milliseconds",
            ("sans-serif", 14),
        )
        .margin_right(16)
        .set_label_area_size(LabelAreaPosition::Left, LEFT_PIXELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 20)
        .build_cartesian_2d(0.0..end, (least..most).log_scale())?;
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
        .x_label_formatter(&whole)
        .y_label_formatter(&milliseconds)
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(LineSeries::new(points, WAIT.stroke_width(2)))?;
    mark_phases(&mut chart, seen, least, most)
}

fn draw_legend(strip: &Strip<'_>) -> Drawn {
    let mut x = LEFT_PIXELS.cast_signed();
    for (colour, meaning) in [
        (FILLING, "fills up"),
        (FULL, "full, does not read"),
        (READING_SLOWLY, "reads slowly"),
        (READING, "reads again"),
        (RESET, "reset by the server"),
        (CLOSED, "closed without a reset"),
    ] {
        strip.draw(&Rectangle::new([(x, 5), (x + 12, 17)], colour.filled()))?;
        strip.draw(&Text::new(meaning, (x + 17, 5), ("sans-serif", 13)))?;
        x += 35 + 7 * i32::try_from(meaning.len()).unwrap_or(0);
    }
    Ok(())
}

fn draw_slow(strip: &Strip<'_>, seen: &Measurement, end: f64) -> Drawn {
    let bars = chosen(&seen.slow);
    let rows = bars.len().max(1) as f64;
    let mut chart = ChartBuilder::on(strip)
        .margin_top(4)
        .margin_right(16)
        .set_label_area_size(LabelAreaPosition::Left, LEFT_PIXELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 34)
        .build_cartesian_2d(0.0..end, rows..0.0)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .y_labels(0)
        .x_desc("seconds")
        .x_label_formatter(&whole)
        .draw()?;
    mark_phases(&mut chart, seen, 0.0, rows)?;
    let mut last_kind = None;
    for (row, client) in bars.iter().enumerate() {
        let (top, bottom) = (row as f64 + 0.12, row as f64 + 0.88);
        for (from, to, colour) in parts(client, seen.seconds) {
            chart.draw_series([Rectangle::new([(from, top), (to, bottom)], colour.filled())])?;
        }
        let ended = client.ended_at.unwrap_or(seen.seconds);
        if let Some(last) = client.end {
            let colour = if last == Disconnect::Reset { RESET } else { CLOSED };
            chart.draw_series([Rectangle::new(
                [(ended, top), (ended + end / 150.0, bottom)],
                colour.filled(),
            )])?;
        }
        if last_kind != Some(client.kind) {
            last_kind = Some(client.kind);
            write(
                &chart,
                (0.0, top),
                (4 - LEFT_PIXELS.cast_signed(), 0),
                client.kind.name(),
                BLACK.mix(1.0),
            )?;
            if let Some((at, words)) = fate(client) {
                write(&chart, (at, top), (12, 0), &words, BLACK.mix(0.8))?;
            }
        }
    }
    Ok(())
}

/// What a client did from when until when, as colours.
fn parts(client: &SlowClientSeen, end: f64) -> Vec<(f64, f64, RGBColor)> {
    let ended = client.ended_at.unwrap_or(end);
    let full = client.full_at.unwrap_or(ended).min(ended);
    if matches!(client.kind, SlowKind::Trickle | SlowKind::Steady) {
        return vec![(client.joined_at, ended, READING_SLOWLY)];
    }
    let resumed = client.resumed_at.unwrap_or(ended).clamp(full, ended);
    vec![
        (client.joined_at, full, FILLING),
        (full, resumed, FULL),
        (resumed, ended, READING),
    ]
}

/// What became of a client, in words, and where they are to stand.
fn fate(client: &SlowClientSeen) -> Option<(f64, String)> {
    let after = match client.seconds_to_end {
        Some(seconds) => format!(" {seconds:.2} s after it was full"),
        None => String::new(),
    };
    match (client.end, client.ended_at) {
        (Some(Disconnect::Reset), Some(at)) => Some((at, format!("reset{after}"))),
        (Some(Disconnect::EndOfFile), Some(at)) => Some((at, format!("closed{after}"))),
        (Some(Disconnect::LeftInKernel), Some(at)) => {
            Some((at, format!("closed{after}, left in the kernel")))
        }
        _ => {
            let at = client.resumed_at.unwrap_or(client.joined_at);
            let words = if client.complete {
                "kept; everything came back"
            } else {
                "kept"
            };
            Some((at, words.to_owned()))
        }
    }
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
    fn a_paused_client_is_full_until_it_reads_again() {
        let client = SlowClientSeen {
            joined_at: 1.0,
            full_at: Some(1.5),
            resumed_at: Some(5.5),
            ..SlowClientSeen::new(SlowKind::Paused, 1)
        };
        let colours: Vec<_> = parts(&client, 9.0)
            .into_iter()
            .map(|part| (part.0, part.1))
            .collect();
        assert_eq!(colours, [(1.0, 1.5), (1.5, 5.5), (5.5, 9.0)]);
        let stalled = SlowClientSeen {
            joined_at: 1.0,
            full_at: Some(1.5),
            ended_at: Some(6.5),
            end: Some(Disconnect::Reset),
            ..SlowClientSeen::new(SlowKind::Stalled, 1)
        };
        let drawn: Vec<_> = parts(&stalled, 9.0)
            .into_iter()
            .filter(|part| part.0 < part.1)
            .collect();
        assert_eq!(drawn, [(1.0, 1.5, FILLING), (1.5, 6.5, FULL)]);
    }

    #[test]
    fn of_many_clients_an_even_choice_is_drawn() {
        let client = |port| SlowClientSeen::new(crate::probe::SlowKind::Stalled, port);
        let clients: Vec<_> = (0..601).map(client).collect();
        let bars = chosen(&clients);
        assert!(bars.len() <= MOST_BARS && bars.len() > MOST_BARS / 2);
        assert_eq!(chosen(&clients[..3]).len(), 3);
    }
}
