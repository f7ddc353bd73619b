//! One picture per comparison: rate and cost to the base, with quartiles.

use std::path::Path;

use plotters::prelude::*;

use crate::scenario::Scenario;
use crate::standing::Standing;
use crate::statistics::Quartiles;

const WIDTH: u32 = 900;
const ROW_HEIGHT: u32 = 46;
const HEAD_HEIGHT: u32 = 96;
const LEFT: i32 = 190;
const RIGHT: i32 = 90;
const RATE: RGBColor = RGBColor(31, 119, 180);
const COST: RGBColor = RGBColor(214, 120, 30);
const GREY: RGBColor = RGBColor(120, 120, 120);
const BAR_HEIGHT: i32 = 15;

/// Draws the standings of a scenario to an SVG file.
pub(crate) fn draw(path: &Path, scenario: &Scenario, standings: &[Standing]) -> Result<(), String> {
    draw_inner(path, scenario, standings).map_err(|error| format!("cannot draw {}: {error}", path.display()))
}

fn draw_inner(
    path: &Path,
    scenario: &Scenario,
    standings: &[Standing],
) -> Result<(), Box<dyn std::error::Error>> {
    let height = HEAD_HEIGHT + ROW_HEIGHT * u32::try_from(standings.len())?;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let title = ("sans-serif", 18).into_font().color(&BLACK);
    area.draw(&Text::new(scenario.title, (12, 12), title))?;
    let small = ("sans-serif", 13).into_font();
    area.draw(&Text::new(
        "rate to the base: more is better",
        (LEFT, 42),
        small.color(&RATE),
    ))?;
    area.draw(&Text::new(
        "CPU for each to the base: less is better",
        (LEFT + 240, 42),
        small.color(&COST),
    ))?;

    let most = standings
        .iter()
        .flat_map(|standing| [standing.rate_ratio().high, standing.cost_ratio().high]);
    let most = most.fold(1.2, f64::max);
    let width = WIDTH as i32 - LEFT - RIGHT;
    let x = |ratio: f64| LEFT + (ratio / most * f64::from(width)) as i32;
    let bottom = height as i32 - 18;
    // The line of the base.
    area.draw(&PathElement::new(vec![(x(1.0), 66), (x(1.0), bottom)], GREY))?;
    area.draw(&Text::new("1.00", (x(1.0) - 12, bottom + 2), small.color(&GREY)))?;
    for (place, standing) in standings.iter().enumerate() {
        let top = 70 + i32::try_from(place)? * ROW_HEIGHT as i32;
        area.draw(&Text::new(standing.label, (12, top + 8), small.color(&BLACK)))?;
        for (below, of, colour) in [
            (0, standing.rate_ratio(), RATE),
            (BAR_HEIGHT + 2, standing.cost_ratio(), COST),
        ] {
            bar(&area, &x, top + below, of, colour)?;
        }
    }
    area.present()?;
    Ok(())
}

fn bar<Area: DrawingBackend>(
    area: &DrawingArea<Area, plotters::coord::Shift>,
    x: &impl Fn(f64) -> i32,
    top: i32,
    of: Quartiles,
    colour: RGBColor,
) -> Result<(), DrawingAreaErrorKind<Area::ErrorType>> {
    let bottom = top + BAR_HEIGHT;
    area.draw(&Rectangle::new(
        [(x(0.0), top), (x(of.median), bottom)],
        colour.mix(0.65).filled(),
    ))?;
    let middle = top + BAR_HEIGHT / 2;
    area.draw(&PathElement::new(
        vec![(x(of.low), middle), (x(of.high), middle)],
        BLACK,
    ))?;
    for end in [of.low, of.high] {
        area.draw(&PathElement::new(
            vec![(x(end), middle - 4), (x(end), middle + 4)],
            BLACK,
        ))?;
    }
    let font = ("sans-serif", 13).into_font().color(&BLACK);
    area.draw(&Text::new(
        format!("{:.2}", of.median),
        (x(of.high.max(of.median)) + 6, top),
        font,
    ))
}
