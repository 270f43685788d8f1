//! The report as one page that needs nothing else.

use core::fmt::Write as _;

use super::LoadReport;
use crate::html;
use crate::plot::{Row, Scale, aligned};

/// The page.
pub fn page(report: &LoadReport) -> String {
    let title = format!("From signed bytes to durable blocks: {}", report.workload);
    let mut page = html::begin(&title);
    let _ = write!(
        page,
        "<p>{} transactions of {} accounts, {} % of them to one recipient, durability {}, in {} blocks by {} cores. \
         {} transactions a second; recovering the senders alone, on the same cores in the same run: {}. The ratio is {}; by \
         processor time {}. Peak memory {} MB. Latency: half within {} ms, 99 % within {} ms.</p>",
        report.transactions,
        report.accounts,
        report.conflict,
        report.durability,
        report.blocks,
        report.threads,
        aligned(report.tx_per_s),
        aligned(report.bound_tx_per_s),
        aligned(report.ratio),
        aligned(report.cpu_ratio),
        aligned(report.rss_mb),
        aligned(report.latency_ms.p50),
        aligned(report.latency_ms.p99),
    );
    let row = |label: String, value: f64| Row {
        label,
        values: vec![value],
    };
    let mut before = 0.0;
    let throughput: Vec<Row> = report
        .tenths_s
        .iter()
        .enumerate()
        .map(|(index, end)| {
            let rate = report.transactions as f64 / 10.0 / (end - before).max(f64::MIN_POSITIVE);
            before = *end;
            row(format!("tenth {}", index + 1), rate)
        })
        // Those that one block finished together have no rate of their own.
        .filter(|row| row.values[0] < 1e9)
        .collect();
    html::section(
        &mut page,
        "Throughput",
        "Transactions a second that became durable, for every tenth of them. The line is the bound set by the recovery of \
         senders.",
        &[("durable transactions a second", "tier-full")],
        &throughput,
        Scale::Linear(Some(report.bound_tx_per_s)),
    );
    let shares: Vec<Row> = report
        .stages
        .iter()
        .map(|(stage, times)| row((*stage).to_owned(), times.cpu_us))
        .collect();
    html::section(
        &mut page,
        "Stages",
        "Microseconds of processor time a transaction.",
        &[("processor time", "tier-auto")],
        &shares,
        Scale::Linear(None),
    );
    let classes: Vec<Row> = report
        .latency_ms
        .histogram
        .iter()
        .map(|(bound, count)| row(format!("to {} ms", aligned(*bound)), *count as f64))
        .collect();
    html::section(
        &mut page,
        "Latency",
        "Transactions by the time from handing over the bytes to the notice of their durable block.",
        &[("transactions", "tier-quick")],
        &classes,
        Scale::Linear(None),
    );
    page.push_str("</body></html>");
    page
}
