//! The report as one page that needs nothing else.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use crate::compute::{ComputeReport, ProgramReport, Ratios, STEPS};
use crate::plot::{Row, Scale, aligned, bars, escape, number};

/// The native code's limit in bytes per byte of bytecode.
const SIZE_LIMIT: f64 = 16.0;

const TIERS: [(&str, &str); 4] = [
    ("interpreter", "tier-interpreter"),
    ("quick", "tier-quick"),
    ("full", "tier-full"),
    ("auto from cold", "tier-auto"),
];
const LEVELS: [(&str, &str); 2] = [TIERS[1], TIERS[2]];
const KERNEL_SIDES: [(&str, &str); 5] = [
    ("plain revm", "plain"),
    TIERS[0],
    TIERS[1],
    TIERS[2],
    TIERS[3],
];

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2026; --paper: #ffffff; --faint: #d9dde3; --soft: #5d6672;
  --plain: #c3c8cf; --interpreter: #8b94a1; --quick: #e3a72f; --full: #2f6fd0; --auto: #2e9b74; --bad: #c43030; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #15181d; --faint: #343a44; --soft: #9aa4b1;
  --plain: #59616d; --interpreter: #8b94a1; --quick: #d9a441; --full: #5b95ee; --auto: #45b78e; --bad: #f07171; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .3rem; } p { max-width: 46rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
svg .label { text-anchor: end; } svg .tick { text-anchor: middle; fill: var(--soft); }
svg .value { font-size: 8.5px; fill: var(--soft); }
.grid { stroke: var(--faint); stroke-width: 1; } .mark { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; }
.plain { fill: var(--plain); background: var(--plain); }
.tier-interpreter { fill: var(--interpreter); background: var(--interpreter); }
.tier-quick { fill: var(--quick); background: var(--quick); } .tier-full { fill: var(--full); background: var(--full); }
.tier-auto { fill: var(--auto); background: var(--auto); }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 2px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; text-align: right; border-bottom: 1px solid var(--faint); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
tr.mean td { font-weight: 600; } .bad { color: var(--bad); }
";

/// The beginning of a page, up to and with its title.
pub(crate) fn begin(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>zvm: {title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
    )
}

/// The page.
pub fn page(report: &ComputeReport) -> String {
    let mut html = begin("Programs in every tier, beside plain revm");
    introduction(&mut html, report);
    section(
        &mut html,
        "Speed",
        "Processor time of plain revm divided by this engine's, a transaction at a time; native code compiled before, \
         but for auto, which begins without any. Right of the line is faster. The scale is logarithmic.",
        &TIERS,
        &ratio_rows(&report.programs),
        Scale::Ratio,
    );
    section(
        &mut html,
        "Compilation",
        "Kilobytes of bytecode a second of processor time.",
        &LEVELS,
        &rows(&report.programs, |program| {
            let rate = |microseconds| program.bytecode as f64 / 1024.0 / (microseconds * 1e-6);
            vec![
                rate(program.compile_quick_us),
                rate(program.compile_full_us),
            ]
        }),
        Scale::Linear(None),
    );
    steps(&mut html, &report.programs);
    section(
        &mut html,
        "Code size",
        "Bytes of native code a byte of bytecode. The line is the limit.",
        &LEVELS,
        &rows(&report.programs, |program| {
            [program.code_quick, program.code_full]
                .map(|code| code as f64 / program.bytecode as f64)
                .to_vec()
        }),
        Scale::Linear(Some(SIZE_LIMIT)),
    );
    let kernels: Vec<Row> = report
        .kernels
        .iter()
        .map(|kernel| {
            let program = &kernel.program;
            let times = [
                program.plain_ns,
                program.interpreter_ns,
                program.quick_ns,
                program.full_ns,
                program.auto_ns,
            ];
            Row {
                label: program.name.clone(),
                values: times.map(|time| kernel.native_ns / time).to_vec(),
            }
        })
        .collect();
    section(
        &mut html,
        "Beside native Rust",
        "Processor time of the same loop written in Rust divided by that of the EVM code: one is what a compiler that knew \
         everything would reach, unless it proves that fewer bits do.",
        &KERNEL_SIDES,
        &kernels,
        Scale::Ratio,
    );
    html.push_str("<h2>Figures</h2>");
    table(&mut html, &report.programs, &report.geomean);
    if !report.gce.is_empty() {
        section(
            &mut html,
            "Single opcodes",
            "Programs of one opcode about fifty times, which the figures above leave out: most of their time is the \
             transaction's.",
            &TIERS[1..],
            &rows(&report.gce, |program| {
                let ratios = program.ratios();
                vec![ratios.quick, ratios.full, ratios.auto]
            }),
            Scale::Ratio,
        );
        html.push_str("<details><summary>Figures of single opcodes</summary>");
        table(&mut html, &report.gce, &report.gce_geomean);
        html.push_str("</details>");
    }
    html.push_str("</body></html>\n");
    html
}

/// What each step of the compilations took: a row a level for all programs, then two a program.
fn steps(html: &mut String, programs: &[ProgramReport]) {
    type Steps = BTreeMap<&'static str, f64>;
    let head = |html: &mut String| {
        html.push_str("<div class=\"scroll\"><table><tr><th></th><th>level</th>");
        for step in STEPS {
            let _ = write!(html, "<th>{step}</th>");
        }
        html.push_str("</tr>");
    };
    let row = |html: &mut String, name: &str, level: &str, steps: &Steps, unit: f64| {
        let _ = write!(html, "<tr><td>{}</td><td>{level}</td>", escape(name));
        for step in STEPS {
            let time = steps.get(step).map_or(f64::NAN, |time| time / unit);
            let _ = write!(html, "<td>{}</td>", aligned(time));
        }
        html.push_str("</tr>");
    };
    type OfLevel = (&'static str, fn(&ProgramReport) -> &Steps);
    let levels: [OfLevel; 2] = [
        ("quick", |program| &program.compile_steps_us.quick),
        ("full", |program| &program.compile_steps_us.full),
    ];
    html.push_str(
        "<h2>Compilation by step</h2><p>Milliseconds of processor time for all programs. Publishing makes the code \
         executable.</p>",
    );
    head(html);
    for (level, of) in levels {
        let mut sum = Steps::new();
        for (step, time) in programs.iter().flat_map(of) {
            *sum.entry(step).or_default() += time;
        }
        row(html, "all", level, &sum, 1e3);
    }
    html.push_str("</table></div><details><summary>Microseconds of each program</summary>");
    head(html);
    for program in programs {
        for (level, of) in levels {
            row(html, &program.name, level, of(program), 1.0);
        }
    }
    html.push_str("</table></div></details>");
}

fn introduction(html: &mut String, report: &ComputeReport) {
    let mean = report.geomean;
    let bare = &report.bare_transaction;
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        html,
        "<p>Geometric mean over {} programs: interpreter <b>{}×</b>, quick <b>{}×</b>, full <b>{}×</b>, auto from cold \
         <b>{}×</b>. Compiled a second of processor time, median: quick <b>{} KB</b>, full <b>{} KB</b>.</p>\
         <p>Medians of {} samples, all sides taking turns in one process ({} build). Every time contains the transaction \
         around the program; one that calls a contract which stops at once takes {} ns by plain revm, {} ns by the \
         interpreter, {} ns natively.</p>",
        report.programs.len(),
        number(mean.interpreter),
        number(mean.quick),
        number(mean.full),
        number(mean.auto),
        number(report.compile.quick_kb_per_s),
        number(report.compile.full_kb_per_s),
        report.repetitions,
        report.build,
        number(bare.plain_ns),
        number(bare.interpreter_ns),
        number(bare.full_ns),
    );
    let unequal: Vec<&ProgramReport> = report.all().filter(|program| !program.equal).collect();
    if unequal.is_empty() {
        let _ = write!(
            html,
            "<p>Gas, refund, output, logs and storage of all {} programs were those expected, on every side.</p>",
            report.all().count()
        );
    }
    for program in unequal {
        let _ = write!(
            html,
            "<p class=\"bad\">Not as expected: {}: {}</p>",
            escape(&program.name),
            escape(program.difference.as_deref().unwrap_or_default())
        );
    }
    for program in report.all() {
        for refused in &program.refused {
            let _ = write!(
                html,
                "<p class=\"bad\">Not compiled: {}: {}</p>",
                escape(&program.name),
                escape(refused)
            );
        }
    }
}

fn rows(programs: &[ProgramReport], values: impl Fn(&ProgramReport) -> Vec<f64>) -> Vec<Row> {
    programs
        .iter()
        .map(|program| Row {
            label: program.name.clone(),
            values: values(program),
        })
        .collect()
}

fn ratio_rows(programs: &[ProgramReport]) -> Vec<Row> {
    rows(programs, |program| {
        let ratios = program.ratios();
        vec![ratios.interpreter, ratios.quick, ratios.full, ratios.auto]
    })
}

/// A plot with its title, what it shows and the names of its series.
pub(crate) fn section(
    html: &mut String,
    title: &str,
    explanation: &str,
    series: &[(&str, &str)],
    rows: &[Row],
    scale: Scale,
) {
    let _ = write!(
        html,
        "<h2>{title}</h2><p>{explanation}</p><p class=\"legend\">"
    );
    for (name, class) in series {
        let _ = write!(html, "<span><i class=\"{class}\"></i>{name}</span>");
    }
    let _ = write!(html, "</p>{}", bars(series, rows, scale));
}

fn table(html: &mut String, programs: &[ProgramReport], mean: &Ratios) {
    html.push_str(
        "<div class=\"scroll\"><table><tr><th>program</th><th>plain µs</th><th>interpreter</th><th>quick</th><th>full</th>\
         <th>auto</th><th>quick ms</th><th>full ms</th><th>bytecode</th><th>quick ×</th><th>full ×</th></tr>",
    );
    for program in programs {
        let ratios = program.ratios();
        let size = |code: usize| aligned(code as f64 / program.bytecode as f64);
        let _ = write!(
            html,
            "<tr><td{}>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td></tr>",
            if program.equal { "" } else { " class=\"bad\"" },
            escape(&program.name),
            aligned(program.plain_ns / 1e3),
            aligned(ratios.interpreter),
            aligned(ratios.quick),
            aligned(ratios.full),
            aligned(ratios.auto),
            aligned(program.compile_quick_us / 1e3),
            aligned(program.compile_full_us / 1e3),
            program.bytecode,
            size(program.code_quick),
            size(program.code_full),
        );
    }
    let _ = write!(
        html,
        "<tr class=\"mean\"><td>geometric mean</td><td></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td></td><td></td>\
         <td></td><td></td><td></td></tr></table></div>",
        aligned(mean.interpreter),
        aligned(mean.quick),
        aligned(mean.full),
        aligned(mean.auto),
    );
}
