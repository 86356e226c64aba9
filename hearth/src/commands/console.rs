//! How far a long command is: a line that is redrawn on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::quantities::{short_count, size};

/// How often the line is redrawn, and how often a plain line is written.
const REDRAW: Duration = Duration::from_millis(100);
const PLAIN_EVERY: Duration = Duration::from_secs(10);
const BAR_CELLS: usize = 24;

/// Shows progress on standard error.
pub struct Console {
    terminal: bool,
    begun: Instant,
    shown: Instant,
    drawn: bool,
    /// What is worked on.
    title: String,
    /// Expected samples; 0 where it is not known.
    total: u64,
    /// Expected bytes, for what is read before it is known how many samples it has; 0 where that is not known
    /// either.
    total_bytes: u64,
    samples: u64,
    bytes: u64,
}

impl Console {
    pub fn new(total: u64) -> Console {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Console {
            terminal,
            begun: now,
            shown: now,
            drawn: false,
            title: String::new(),
            total,
            total_bytes: 0,
            samples: 0,
            bytes: 0,
        }
    }

    pub fn title(&mut self, title: String) {
        self.title = title;
        self.show(self.terminal);
    }

    pub fn expect(&mut self, total: u64) {
        self.total = total;
    }

    pub fn expect_bytes(&mut self, total: u64) {
        self.total_bytes = total;
    }

    /// Begins a second pass over what was read: the count of samples, not of bytes, begins again.
    pub fn restart(&mut self, total: u64) {
        (self.total, self.total_bytes, self.samples) = (total, 0, 0);
    }

    /// Counts samples and bytes that were read.
    pub fn advance(&mut self, samples: u64, bytes: u64) {
        self.samples += samples;
        self.bytes += bytes;
        let every = if self.terminal { REDRAW } else { PLAIN_EVERY };
        if self.shown.elapsed() >= every {
            self.show(true);
        }
    }

    /// A line that stays.
    pub fn line(&mut self, text: impl std::fmt::Display) {
        self.clear();
        crate::complain(text);
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if self.drawn {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
            self.drawn = false;
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn samples(&self) -> u64 {
        self.samples
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The part that is done, 0 to 1, where it is known what the whole is.
    fn done(&self) -> Option<f64> {
        let part = |done: u64, total: u64| (total > 0).then(|| (done as f64 / total as f64).min(1.0));
        part(self.samples, self.total).or_else(|| part(self.bytes, self.total_bytes))
    }

    fn show(&mut self, now: bool) {
        if !now {
            return;
        }
        self.shown = Instant::now();
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let speed = format!(
            "{} samples, {}/s, {}/s",
            short_count(self.samples),
            short_count((self.samples as f64 / seconds) as u64),
            size((self.bytes as f64 / seconds) as u64)
        );
        let done = self.done();
        if !self.terminal {
            let percent = done.map_or(String::new(), |d| format!("{:.0} %, ", 100.0 * d));
            return crate::complain(format_args!("{percent}{speed}: {}", self.title));
        }
        let bar = done.map_or(String::new(), |d| {
            let full = (d * BAR_CELLS as f64) as usize;
            let left = match (d > 0.02).then(|| Duration::from_secs_f64(seconds / d * (1.0 - d))) {
                Some(left) => format!(", {} left", clock(left)),
                None => String::new(),
            };
            format!("[{}{}] {:3.0} %{left}  ", "#".repeat(full), "-".repeat(BAR_CELLS - full), 100.0 * d)
        });
        let line: String = format!("{bar}{speed}  {}", self.title).chars().take(118).collect();
        let _ = write!(std::io::stderr(), "\r\x1b[2K{line}");
        let _ = std::io::stderr().flush();
        self.drawn = true;
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.clear();
    }
}

fn clock(d: Duration) -> String {
    let s = d.as_secs();
    if s >= 3600 { format!("{}:{:02} h", s / 3600, s / 60 % 60) } else { format!("{}:{:02}", s / 60, s % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_part_is_of_samples_or_else_of_bytes() {
        let mut console = Console::new(0);
        console.advance(5, 50);
        assert_eq!(console.done(), None);
        console.expect_bytes(200);
        assert_eq!(console.done(), Some(0.25));
        console.restart(10);
        assert_eq!(console.done(), Some(0.0));
        console.advance(20, 0);
        assert_eq!(console.done(), Some(1.0));
    }

    #[test]
    fn clock_shows_hours_and_minutes() {
        assert_eq!(clock(Duration::from_secs(3725)), "1:02 h");
    }
}
