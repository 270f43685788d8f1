//! Horizontal bars as inline SVG. Colours are classes, so that the page's theme sets them.

use core::fmt::Write as _;

/// Width of a plot in its own units; the page scales it.
const WIDTH: f64 = 960.0;
/// Where the bars begin, and where the axis ends: labels are to the left, values to the right.
const AXIS: (f64, f64) = (260.0, 890.0);
/// Height of a bar.
const BAR: f64 = 9.0;
/// Space between groups of bars.
const GAP: f64 = 9.0;
/// Height of the axis above the bars.
const TOP: f64 = 24.0;

/// What the length of a bar means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Bars begin at one, faster to the right, slower to the left; twice and half are as long.
    Ratio,
    /// Bars begin at zero. The line, where there is one, marks a limit or a goal.
    Linear(Option<f64>),
}

/// The bars of one program.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name.
    pub label: String,
    /// One value a series; what is not finite has no bar.
    pub values: Vec<f64>,
}

/// The plot. `series` are pairs of name and class.
pub fn bars(series: &[(&str, &str)], rows: &[Row], scale: Scale) -> String {
    let values = || {
        let all = rows.iter().flat_map(|row| row.values.iter().copied());
        all.filter(|value| value.is_finite() && *value > 0.0)
    };
    let marked = match scale {
        Scale::Ratio => Some(1.0),
        Scale::Linear(line) => line,
    };
    let largest = values().chain(marked).fold(f64::MIN_POSITIVE, f64::max);
    let smallest = values().chain(marked).fold(f64::INFINITY, f64::min);
    let (low, high, ticks) = match scale {
        Scale::Ratio => {
            let (low, high) = (round_down(smallest), round_up(largest));
            (low, high, ratio_ticks(low, high))
        }
        Scale::Linear(_) => {
            let step = linear_step(largest);
            let count = (largest / step).ceil();
            let ticks = (0..=count as u32).map(|index| f64::from(index) * step);
            (0.0, count * step, ticks.collect())
        }
    };
    let place = |value: f64| {
        let share = match scale {
            Scale::Ratio => (value / low).ln() / (high / low).ln(),
            Scale::Linear(_) => value / high,
        };
        AXIS.0 + (AXIS.1 - AXIS.0) * share.clamp(0.0, 1.0)
    };
    let row_height = BAR * series.len() as f64 + GAP;
    let bottom = TOP + row_height * rows.len() as f64;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        r#"<svg viewBox="0 0 {WIDTH} {:.0}" role="img">"#,
        bottom + 4.0
    );
    for tick in ticks {
        let x = place(tick);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom:.1}"/><text class="tick" x="{x:.1}" y="16">{}</text>"#,
            number(tick)
        );
    }
    let origin = match scale {
        Scale::Ratio => place(1.0),
        Scale::Linear(_) => AXIS.0,
    };
    for (index, row) in rows.iter().enumerate() {
        let top = TOP + row_height * index as f64 + GAP / 2.0;
        let middle = top + BAR * series.len() as f64 / 2.0;
        let _ = write!(
            svg,
            r#"<text class="label" x="{:.1}" y="{:.1}">{}</text>"#,
            AXIS.0 - 10.0,
            middle + 4.0,
            escape(&row.label)
        );
        for (place_in_row, ((name, class), value)) in series.iter().zip(&row.values).enumerate() {
            if !value.is_finite() {
                continue;
            }
            let (x, y) = (place(*value), top + BAR * place_in_row as f64);
            let (left, width) = (x.min(origin), (x - origin).abs().max(0.5));
            let _ = write!(
                svg,
                r#"<rect class="{class}" x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}"><title>{}, {name}: {}</title></rect><text class="value" x="{:.1}" y="{:.1}">{}</text>"#,
                BAR - 1.0,
                escape(&row.label),
                number(*value),
                x.max(origin) + 4.0,
                y + BAR - 1.6,
                number(*value)
            );
        }
    }
    if let Some(marked) = marked {
        let x = place(marked);
        let _ = write!(
            svg,
            r#"<line class="mark" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom:.1}"/>"#
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Three significant digits at most.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = match value.abs() {
        size if size >= 99.95 => return format!("{value:.0}"),
        size if size >= 9.995 => 1,
        size if size >= 0.095 => 2,
        size if size >= 0.0095 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text as it may stand in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// 1, 2 and 5 times the powers of ten from `low` to `high`.
fn ratio_ticks(low: f64, high: f64) -> Vec<f64> {
    let mut ticks = Vec::new();
    for exponent in -6..=9 {
        for digit in [1.0, 2.0, 5.0] {
            let tick = digit * 10_f64.powi(exponent);
            if tick >= low * 0.999 && tick <= high * 1.001 {
                ticks.push(tick);
            }
        }
    }
    ticks
}

/// The next of 1, 2, 5 times a power of ten, downwards.
fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let digit = [5.0, 2.0, 1.0]
        .into_iter()
        .find(|digit| digit * power <= value * 1.001);
    digit.unwrap_or(1.0) * power
}

/// The same upwards.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let digit = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|digit| digit * power >= value * 0.999);
    digit.unwrap_or(10.0) * power
}

/// A round step that gives at most ten ticks.
fn linear_step(largest: f64) -> f64 {
    round_up(largest / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let texts = [
            0.0,
            0.0051,
            0.834,
            0.5,
            10.0,
            9.876,
            12.34,
            99.96,
            1234.5,
            f64::NAN,
        ]
        .map(number);
        assert_eq!(
            texts,
            [
                "0", "0.0051", "0.83", "0.5", "10", "9.88", "12.3", "100", "1234", "–"
            ]
        );
    }

    #[test]
    fn limits_of_the_axis_are_round_and_contain_the_values() {
        for value in [0.3, 0.99, 1.0, 1.01, 1.9, 2.0, 4.9, 5.1, 33.0, 1999.0] {
            let (low, high) = (round_down(value), round_up(value));
            assert!(low <= value * 1.001 && value <= high * 1.001, "{value}");
            assert!(high / low <= 2.51, "{value}: {low} {high}");
        }
        assert_eq!(ratio_ticks(0.5, 20.0), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
    }

    #[test]
    fn what_was_not_measured_has_no_bar_and_names_are_escaped() {
        let rows = [Row {
            label: "<a & b>".into(),
            values: vec![2.0, f64::NAN, 0.5],
        }];
        let series = [("x", "c0"), ("y", "c1"), ("z", "c2")];
        for scale in [Scale::Ratio, Scale::Linear(Some(16.0)), Scale::Linear(None)] {
            let svg = bars(&series, &rows, scale);
            assert_eq!(svg.matches("<rect").count(), 2);
            assert!(svg.contains("&lt;a &amp; b&gt;"));
            assert!(!svg.contains("NaN"));
        }
    }
}
