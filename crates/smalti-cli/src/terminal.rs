//! What the user sees: progress bars, notes, warnings, errors on stderr; data on stdout.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use smalti::Observer;

use crate::hints;

/// The user's terminal.
pub(crate) struct Terminal {
    quiet: bool,
    bars: bool,
    stop: Arc<AtomicBool>,
    bar: Option<ProgressBar>,
}

impl Terminal {
    /// No bars where stderr is no terminal; nothing but errors when `quiet`.
    pub(crate) fn new(quiet: bool, stop: Arc<AtomicBool>) -> Self {
        Self {
            quiet,
            bars: !quiet && std::io::stderr().is_terminal(),
            stop,
            bar: None,
        }
    }

    /// Data for the caller.
    pub(crate) fn data(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        // A reader that has seen enough (`| head`) is no failure.
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(anyhow::Error::new(error).context("cannot print the result"))
            }
            _ => Ok(()),
        }
    }

    /// An error with its causes and advice.
    pub(crate) fn error(&mut self, error: &anyhow::Error) {
        self.end();
        let mut text = format!("error: {error}");
        let mut shown = error.to_string();
        for cause in error.chain().skip(1) {
            let cause = cause.to_string();
            // Transparent wrappers say the same twice.
            if !shown.contains(&cause) {
                text.push_str(&format!("\n  because: {cause}"));
            }
            shown = cause;
        }
        if let Some(hint) = hints::hint(error) {
            text.push_str(&format!("\nhint: {hint}"));
        }
        self.line(&text);
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }
}

fn write_line(text: &str) {
    // Nothing is left to be done about a closed stderr.
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

impl Observer for Terminal {
    fn begin(&mut self, phase: &str, unit: &'static str, steps: u64) {
        self.end();
        if !self.bars {
            self.note(&format!("{phase}: {steps} {unit}s"));
            return;
        }
        let bar = ProgressBar::new(steps);
        let template = format!(
            "{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit}s  {{per_sec}}  {{eta}} left  {{msg}}"
        );
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_prefix(phase.to_owned());
        self.bar = Some(bar);
    }

    fn advance(&mut self, done: u64, note: &str) {
        if let Some(bar) = &self.bar {
            if bar.position() == 0 && done > 1 {
                // Work that an earlier run has done says nothing about this one's rate.
                bar.reset_eta();
            }
            bar.set_position(done);
            if !note.is_empty() {
                bar.set_message(note.to_owned());
            }
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn note(&mut self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    fn warn(&mut self, text: &str) {
        self.line(&format!("warning: {text}"));
    }

    fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
