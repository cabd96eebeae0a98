//! Who watches a long piece of work.

/// Told how a piece of work goes, and asked whether to go on. Libraries never print: a program does, here.
pub trait Observer {
    /// A phase begins: `steps` units of work called `unit` follow.
    fn begin(&mut self, phase: &str, unit: &'static str, steps: u64);

    /// So many units of the phase are done; `note` is a short line of current numbers.
    fn advance(&mut self, done: u64, note: &str);

    /// The phase is over.
    fn end(&mut self);

    /// Something worth reading, once.
    fn note(&mut self, text: &str);

    /// Something that the user should act on.
    fn warn(&mut self, text: &str);

    /// Whether to stop at the next safe place.
    fn stop_requested(&self) -> bool;
}

/// An observer that says nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&mut self, _phase: &str, _unit: &'static str, _steps: u64) {}
    fn advance(&mut self, _done: u64, _note: &str) {}
    fn end(&mut self) {}
    fn note(&mut self, _text: &str) {}
    fn warn(&mut self, _text: &str) {}
    fn stop_requested(&self) -> bool {
        false
    }
}
