//! Processor and wall time of repeated runs. Subjects take turns, so that what disturbs the machine disturbs all of them.

use std::time::Instant;

use serde::Serialize;
use zvm_engine::fixtures::replay::thread_cpu_seconds;

/// Something that is run repeatedly.
pub trait Subject {
    /// Once before each sample, outside of the clock.
    ///
    /// # Errors
    /// The sample cannot be taken.
    fn prepare(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// One run. Every run must do the same work.
    ///
    /// # Errors
    /// It did not.
    fn run(&mut self) -> Result<(), String>;
}

/// What one run took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Time {
    /// Processor time of the thread that ran it.
    pub cpu: f64,
    /// From beginning to end.
    pub wall: f64,
}

/// The median of one clock over samples.
pub fn median_of(times: &[Time], clock: impl Fn(&Time) -> f64) -> f64 {
    Spread::of(&times.iter().map(clock).collect::<Vec<_>>()).median
}

/// Median and quartiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// A quarter of the values are below.
    pub low: f64,
    /// A quarter of the values are above.
    pub high: f64,
}

impl Spread {
    /// Of some values; zero of none.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |quarters: usize| {
            let last = sorted.len().saturating_sub(1);
            // The nearest rank.
            sorted
                .get((last * quarters + 2) / 4)
                .copied()
                .unwrap_or_default()
        };
        Self {
            median: at(2),
            low: at(1),
            high: at(3),
        }
    }
}

/// What one of `runs` runs takes.
///
/// # Errors
/// A run failed.
pub fn time(subject: &mut dyn Subject, runs: u32) -> Result<Time, String> {
    subject.prepare()?;
    let (wall, cpu) = (Instant::now(), thread_cpu_seconds());
    for _ in 0..runs {
        subject.run()?;
    }
    Ok(Time {
        cpu: (thread_cpu_seconds() - cpu) / f64::from(runs),
        wall: wall.elapsed().as_secs_f64() / f64::from(runs),
    })
}

/// How many runs a sample of at least `shortest` seconds of processor time needs.
///
/// # Errors
/// A run failed.
pub fn calibrate(subject: &mut dyn Subject, shortest: f64) -> Result<u32, String> {
    // The first run finds cold caches and may compile.
    subject.prepare()?;
    subject.run()?;
    let mut runs = 1;
    loop {
        let one = time(subject, runs)?.cpu;
        if one * f64::from(runs) >= shortest {
            return Ok(runs);
        }
        // A tenth above what this sample says; never more than a hundredfold by one short sample.
        let wanted = (shortest * 1.1 / one.max(1e-9)).ceil();
        runs = (wanted.min(f64::from(runs) * 100.0) as u32).max(runs + 1);
    }
}

/// Samples of all subjects, `repetitions` each, in an order that turns: no subject always follows the same one.
///
/// # Errors
/// A run failed.
pub fn take_turns(
    subjects: &mut [(&mut dyn Subject, u32)],
    repetitions: usize,
) -> Result<Vec<Vec<Time>>, String> {
    let count = subjects.len();
    let mut samples = vec![Vec::with_capacity(repetitions); count];
    for repetition in 0..repetitions {
        for place in 0..count {
            let place = if repetition % 2 == 0 {
                place
            } else {
                count - 1 - place
            };
            let index = (place + repetition / 2) % count;
            let (subject, runs) = &mut subjects[index];
            samples[index].push(time(*subject, *runs)?);
        }
    }
    Ok(samples)
}

/// The geometric mean; one of none.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value.ln();
        count += 1.0;
    }
    if count == 0.0 {
        1.0
    } else {
        (sum / count).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counted {
        prepared: u32,
        runs: u32,
    }

    impl Subject for Counted {
        fn prepare(&mut self) -> Result<(), String> {
            self.prepared += 1;
            Ok(())
        }
        fn run(&mut self) -> Result<(), String> {
            self.runs += 1;
            Ok(())
        }
    }

    #[test]
    fn every_subject_is_sampled_as_often_with_its_own_number_of_runs() {
        let (mut a, mut b, mut c) = <(Counted, Counted, Counted)>::default();
        let samples = take_turns(&mut [(&mut a, 3), (&mut b, 5), (&mut c, 1)], 7).unwrap();
        assert_eq!(samples.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 7]);
        assert_eq!([a.prepared, b.prepared, c.prepared], [7, 7, 7]);
        assert_eq!([a.runs, b.runs, c.runs], [21, 35, 7]);
    }

    #[test]
    fn the_spread_is_median_and_quartiles_in_any_order() {
        let spread = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        assert_eq!(Spread::of(&[]), Spread::default());
        assert_eq!(Spread::of(&[7.0]).low, 7.0);
    }

    #[test]
    fn the_geometric_mean_of_a_ratio_and_its_inverse_is_one() {
        assert!((geometric_mean([4.0, 0.25]) - 1.0).abs() < 1e-12);
        assert!((geometric_mean([2.0, 8.0]) - 4.0).abs() < 1e-12);
    }
}
